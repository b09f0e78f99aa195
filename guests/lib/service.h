/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest on the network: ARP, ICMP echo, and UDP as guest_abi.h describes it, on the first virtio-net and
 * the address of `ip=`. Without either of the two all of this does nothing. Poll it from one processor only.
 */
#ifndef GUESTS_LIB_SERVICE_H
#define GUESTS_LIB_SERVICE_H

#include <stdbool.h>
#include "guest_abi.h"
#include "lib/virtio_net.h"

/* An op of this guest alone: fills in *m (the request, and then the answer). false: it has no such op. */
typedef bool (*service_op)(struct guest_message *m);

/* irq_cpu, event_idx: as in net_open. false: there is no network. */
bool service_start(service_op op, int irq_cpu, bool event_idx);
/* Answers everything that has come in. */
void service_poll(void);
/* Tells the segment who has this address. false: no buffer was free. */
bool service_announce(void);
/* NULL: there is no network. */
struct net *service_net(void);

#endif

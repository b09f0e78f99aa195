/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Peer check: what this side alone can see is missing for its guest to be sent to a peer. What the two must agree on the
 * peer answers.
 */
#ifndef CONTROL_PEER_CHECK_H
#define CONTROL_PEER_CHECK_H

#include "control/vm.h"

/* All of it, one a line. psk: empty: none. */
bool peer_check(Vm *vm, const char *to, const char *psk, bool insecure, Error **errp);

#endif

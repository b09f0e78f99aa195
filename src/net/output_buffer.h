/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Output buffer: holds what the guest sends until the epoch that produced it is acknowledged. A NetPort
 * filter, and a CheckpointDevice of kind NIC. (console_gate.h does the same for console bytes.)
 *
 * Off protection frames pass through. From setup to teardown each goes to the open epoch's queue; postsuspend
 * closes it and opens the next; commit(N) sends exactly epoch N's frames, in order, each once. Bounded: when
 * full, send answers false (the NIC leaves the rest in the ring) until a commit frees room. Every frame
 * counts, whatever its type.
 *
 * Threads: send and receive on the I/O loop; postsuspend (paused), commit and teardown on the engine's task.
 * Own lock.
 */
#ifndef NET_OUTPUT_BUFFER_H
#define NET_OUTPUT_BUFFER_H

#include "net/net.h"

#define OUTPUT_BUFFER_BYTES_DEFAULT (8u * 1024 * 1024)

/* Takes next. Adds its CheckpointDevice (id next->id) to the layer. limit in bytes. */
NetPort *net_output_buffer_new(NetPort *next, size_t limit, Error **errp);
/* Registers the implementation with the checkpoint layer: once a process. */
void net_output_buffer_register(void);
/* UNSAFE, for the demo's proof only: while on, frames pass at once although protected. */
void net_output_buffer_set_unsafe_passthrough(bool on);

#endif

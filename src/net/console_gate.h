/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Console gate: holds the output bytes of a serial line or a channel until their epoch is acknowledged: the
 * output buffer's rules, for a byte stream. One for each, told apart by id.
 *
 * What is behind it may lose bytes that nobody reads in time (a console), or keep them all (a channel):
 * then it says how many it can take, and the gate takes no more than that, held ones included.
 */
#ifndef NET_CONSOLE_GATE_H
#define NET_CONSOLE_GATE_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ConsoleGate ConsoleGate;

/* write: where released bytes go (called on the I/O loop or the engine's task, never both at once; must not
 * block for long). */
ConsoleGate *console_gate_new(const char *id, void (*write)(void *opaque, const void *buf, size_t n),
                              void *opaque, size_t limit, Error **errp);
void console_gate_free(ConsoleGate *g);
/* room: what write can be given now; asked with the loop lock held. It must be SIZE_MAX while nobody is
 * there, and at least limit when somebody has come. Whoever frees room calls what console_gate_on_writable
 * set. Before the first put. */
void console_gate_set_room(ConsoleGate *g, size_t (*room)(void *opaque));
/* Takes up to n bytes, returns how many (less: full; try again after writable). */
size_t console_gate_put(ConsoleGate *g, const void *buf, size_t n);
void console_gate_on_writable(ConsoleGate *g, void (*writable)(void *opaque), void *opaque);
void console_gate_register(void);
void console_gate_set_unsafe_passthrough(bool on);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Console gate: holds the console's output bytes until their epoch is acknowledged: the output buffer's
 * rules, for a byte stream.
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
/* Takes up to n bytes, returns how many (less: full; try again after writable). */
size_t console_gate_put(ConsoleGate *g, const void *buf, size_t n);
void console_gate_on_writable(ConsoleGate *g, void (*writable)(void *opaque), void *opaque);
void console_gate_register(void);
void console_gate_set_unsafe_passthrough(bool on);

#endif

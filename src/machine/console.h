/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Console: where a stream of bytes of the guest, its serial line or a channel, ends on this host: stdio,
 * file:PATH, unix:PATH (one client at a time), null.
 *
 * Output comes from a console gate, already released: console_write() is the gate's write function. What the
 * peer of a console does not take in time is dropped: a console never holds up the machine. A channel
 * (console_keep) drops nothing while its client is there: console_room() is its gate's, and the guest waits.
 * Without a client output goes nowhere. Input goes to the device as it has room.
 */
#ifndef MACHINE_CONSOLE_H
#define MACHINE_CONSOLE_H

#include "device/devices.h"

typedef struct Console Console;

/* The device at the guest's end. Called with the loop lock held. */
struct console_device {
    /* How many of n bytes were taken; console_feed() when there is room again. */
    size_t (*input)(void *opaque, const void *buf, size_t n);
    void (*opened)(void *opaque, bool open); /* a client came, or left. NULL: nobody cares */
    void (*drained)(void *opaque);           /* there is room for output again. NULL: there always is */
    void *opaque;
};

/* option: how the user calls it, for errors: "--console". */
Console *console_new(const char *option, const char *spec, Loop *loop, Error **errp);
/* Before console_attach: keeps up to limit bytes that the client has not read yet, instead of dropping any.
 */
bool console_keep(Console *c, size_t limit, Error **errp);
/* Reads no more input, knows no device. Loop lock held, or the loop was never started. */
void console_detach(Console *c);
/* Loop lock held, or the loop was never started. NULL is fine. */
void console_free(Console *c);
/* From here input is read. */
bool console_attach(Console *c, const struct console_device *device, Error **errp);
/* These take the Console as an opaque pointer. */
void console_write(void *opaque, const void *buf, size_t n); /* any thread */
size_t console_room(void *opaque);                           /* of console_keep */
void console_feed(void *opaque);                             /* loop lock held */
/* Hangs up on the client; the rest follows when the loop runs. Any thread. */
void console_cut(void *opaque);

#endif

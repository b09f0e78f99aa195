/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Console: where the guest's serial line ends on this host: stdio, file:PATH, unix:PATH (one client at a
 * time), null.
 *
 * Output comes from the console gate, already released: console_write() is the gate's write function. What a
 * peer does not take in time is dropped: the console never holds up the machine. Input goes to the serial
 * device as it has room.
 */
#ifndef MACHINE_CONSOLE_H
#define MACHINE_CONSOLE_H

#include "device/devices.h"

typedef struct Console Console;

Console *console_new(const char *spec, Loop *loop, Error **errp);
/* Reads no more input, knows no serial device. Loop lock held, or the loop was never started. */
void console_detach(Console *c);
/* Loop lock held, or the loop was never started. NULL is fine. */
void console_free(Console *c);
/* From here input is read. serial is borrowed. */
bool console_attach(Console *c, Device *serial, Error **errp);
void console_write(void *opaque, const void *buf, size_t n);

#endif

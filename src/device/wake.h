/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wake: a handler on the loop that any thread may ask for, and that goes away cleanly: after wake_destroy()
 * it is not called again, whoever still signals. An eventfd in the loop; its descriptor also serves as a
 * doorbell that the kernel signals.
 *
 * wake_signal: any thread, any lock, while the wake exists. The handler runs with the loop lock held, once
 * for any number of signals.
 */
#ifndef DEVICE_WAKE_H
#define DEVICE_WAKE_H

#include "base/loop.h"

struct wake {
    int fd; /* for map_doorbell */
    Loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
};

/* w must stay where it is until wake_destroy. */
bool wake_init(struct wake *w, Loop *loop, void (*fn)(void *opaque), void *opaque, Error **errp);
void wake_signal(struct wake *w);
/* Lock held, or the loop stands still. */
void wake_destroy(struct wake *w);

#endif

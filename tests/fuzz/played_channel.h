/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Played channel: a peer that was written down before. Reads get its bytes, and then the end of the connection, or
 * silence; what is written to it is kept.
 */
#ifndef TESTS_PLAYED_CHANNEL_H
#define TESTS_PLAYED_CHANNEL_H

#include "incoming_rig.h"

struct played_part {
    const void *data; /* borrowed until the channel is closed */
    size_t size;
};

/* heard: grows by what is written (malloc); NULL: nobody listens. */
Channel *played_channel_new(const struct played_part parts[2], bool silent, struct rig_bytes *heard);
/* The same of answers: they are there when somebody waits for them, and not yet when he only looks. */
Channel *played_answers_new(const struct played_part *answers, bool silent, struct rig_bytes *heard);

#endif

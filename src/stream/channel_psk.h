/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a loaded key: channel_psk.c makes it, channel_tls.c uses it.
 */
#ifndef STREAM_CHANNEL_PSK_H
#define STREAM_CHANNEL_PSK_H

#include "stream/channel.h"

#define PSK_SIZE 32
/* What a client calls its key: this, or this and ":NAME" of the machine it comes for. */
#define CHANNEL_PSK_IDENTITY "perdure"

struct channel_psk {
    uint8_t key[PSK_SIZE];
    char identity[sizeof(CHANNEL_PSK_IDENTITY) + 1 + 64];
};

#endif

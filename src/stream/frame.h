/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Frame: the 24 bytes before every body in a VMStream (docs/wire-format.md), little-endian:
 *
 *      0      2       4        8              16          20            24
 *      | type | flags | length |      id      | body CRC  | header CRC  | body ...
 *
 * A record whose body is larger than PERDURE_STREAM_CHUNK travels as several frames of the same type and id;
 * all but the last have FRAME_MORE and are full. There is one way to write a record: what differs from it is
 * refused.
 */
#ifndef STREAM_FRAME_H
#define STREAM_FRAME_H

#include <stdint.h>

#define FRAME_HEADER_SIZE 24
#define FRAME_MORE        1u /* flag: the record goes on in the next frame */

struct frame {
    uint16_t type;
    uint16_t flags;
    uint32_t length;
    uint64_t id;
    uint32_t body_crc;
};

/* Computes both checksums; body_crc of the argument is not looked at. */
void frame_encode(uint8_t ret_header[FRAME_HEADER_SIZE], const struct frame *fr, const void *body);
/* NULL, or what is wrong with the header. */
const char *frame_decode(const uint8_t header[FRAME_HEADER_SIZE], struct frame *ret_frame);

#endif

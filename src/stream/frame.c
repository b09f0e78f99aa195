/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/frame.h"
#include "base/crc32c.h"
#include "base/endian.h"

#include <perdure/stream.h>

#define HEADER_CRC_AT 20

void frame_encode(uint8_t ret_header[FRAME_HEADER_SIZE], const struct frame *fr, const void *body)
{
    le16_put(ret_header, fr->type);
    le16_put(ret_header + 2, fr->flags);
    le32_put(ret_header + 4, fr->length);
    le64_put(ret_header + 8, fr->id);
    le32_put(ret_header + 16, crc32c(0, body, fr->length));
    le32_put(ret_header + HEADER_CRC_AT, crc32c(0, ret_header, HEADER_CRC_AT));
}

const char *frame_decode(const uint8_t header[FRAME_HEADER_SIZE], struct frame *ret_frame)
{
    struct frame fr = {
        .type = le16_get(header),
        .flags = le16_get(header + 2),
        .length = le32_get(header + 4),
        .id = le64_get(header + 8),
        .body_crc = le32_get(header + 16),
    };

    if (le32_get(header + HEADER_CRC_AT) != crc32c(0, header, HEADER_CRC_AT))
        return "the checksum of the header is wrong";
    if (fr.flags & ~FRAME_MORE)
        return "the header has unknown flags";
    if (fr.length > PERDURE_STREAM_CHUNK)
        return "the frame is too long";
    if (fr.flags & FRAME_MORE && fr.length != PERDURE_STREAM_CHUNK)
        return "a frame that is not the last of its record is not full";
    *ret_frame = fr;
    return NULL;
}

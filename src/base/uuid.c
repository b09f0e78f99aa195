/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/uuid.h"
#include "base/random.h"

#include <stdint.h>
#include <string.h>

static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
static const char digits[] = "0123456789abcdef";

void uuid_random(char ret_text[UUID_TEXT_SIZE])
{
    uint8_t bytes[16];
    int nibble = 0;

    random_bytes(bytes, sizeof(bytes));
    bytes[6] = (bytes[6] & 0x0f) | 0x40; /* version 4 */
    bytes[8] = (bytes[8] & 0x3f) | 0x80; /* variant 1 */
    for (int i = 0; i < UUID_TEXT_SIZE; i++) {
        if (shape[i] != 'x') {
            ret_text[i] = shape[i];
            continue;
        }
        ret_text[i] = digits[bytes[nibble / 2] >> (nibble % 2 ? 0 : 4) & 0xf];
        nibble++;
    }
}

bool uuid_valid(const char *text)
{
    for (int i = 0; i < UUID_TEXT_SIZE - 1; i++) {
        if (!text[i])
            return false;
        if (shape[i] == 'x' ? !strchr(digits, text[i]) : text[i] != shape[i])
            return false;
    }
    return !text[UUID_TEXT_SIZE - 1];
}

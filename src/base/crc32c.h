/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CRC32C (Castagnoli): 0 to begin, the result so far to go on. crc32c(0, "123456789", 9) is 0xe3069283.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

uint32_t crc32c(uint32_t seed, const void *buf, size_t n);
/* The same without the processor's help; crc32c() calls it where there is none. */
uint32_t crc32c_portable(uint32_t seed, const void *buf, size_t n);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/crc32c.h"
#include "base/endian.h"

#include <pthread.h>

#define POLYNOMIAL 0x82f63b78u /* bit-reversed */

/* table[k][b]: what byte b, followed by k zero bytes, does to the remainder. */
static uint32_t table[8][256];

static void make_table(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

static uint32_t step8_portable(uint32_t crc, const uint8_t *p)
{
    uint64_t v = le64_get(p) ^ crc;

    crc = 0;
    for (int i = 0; i < 8; i++)
        crc ^= table[7 - i][v >> (8 * i) & 0xff];
    return crc;
}

uint32_t crc32c_portable(uint32_t seed, const void *buf, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const uint8_t *p = buf;
    uint32_t crc = ~seed;

    pthread_once(&once, make_table);
    for (; n >= 8; n -= 8, p += 8)
        crc = step8_portable(crc, p);
    for (; n; n--, p++)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

#ifdef __x86_64__
#include <nmmintrin.h>
#include <wmmintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

/*
 * The crc32 instruction takes one word a cycle but answers after three: three lanes, side by side, keep it
 * busy. A lane's remainder is then moved past the n bytes that follow it, which is a multiplication with
 * x^(8n). A carry-less product of two bit-reversed numbers comes out one place too high, and reducing it with
 * the crc32 instruction multiplies by x^32: hence x^(8n - 33) below.
 */
#define LONG_LANE      1024
#define PAST_LONG      0x170076fau /* x^(8 * 1024 - 33) mod P */
#define PAST_TWO_LONG  0xa51b6135u /* x^(8 * 2048 - 33) mod P */
#define SHORT_LANE     128
#define PAST_SHORT     0x0d3b6092u /* x^(8 * 128 - 33) mod P */
#define PAST_TWO_SHORT 0xb9e02b86u /* x^(8 * 256 - 33) mod P */

HARDWARE static inline uint64_t move_past(uint64_t crc, uint32_t factor)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128(factor), 0);

    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

HARDWARE static inline uint64_t three_lanes(uint64_t crc, const uint8_t *p, size_t lane, uint32_t past,
                                            uint32_t past_two)
{
    uint64_t b = 0, c = 0;

    for (const uint8_t *end = p + lane; p < end; p += 8) {
        crc = _mm_crc32_u64(crc, le64_get(p));
        b = _mm_crc32_u64(b, le64_get(p + lane));
        c = _mm_crc32_u64(c, le64_get(p + 2 * lane));
    }
    return move_past(crc, past_two) ^ move_past(b, past) ^ c;
}

HARDWARE static uint32_t crc32c_hardware(uint32_t seed, const uint8_t *p, size_t n)
{
    uint64_t crc = ~seed;

    for (; n >= 3 * LONG_LANE; n -= 3 * LONG_LANE, p += 3 * LONG_LANE)
        crc = three_lanes(crc, p, LONG_LANE, PAST_LONG, PAST_TWO_LONG);
    for (; n >= 3 * SHORT_LANE; n -= 3 * SHORT_LANE, p += 3 * SHORT_LANE)
        crc = three_lanes(crc, p, SHORT_LANE, PAST_SHORT, PAST_TWO_SHORT);
    for (; n >= 8; n -= 8, p += 8)
        crc = _mm_crc32_u64(crc, le64_get(p));
    for (; n; n--, p++)
        crc = _mm_crc32_u8((uint32_t)crc, *p);
    return ~(uint32_t)crc;
}

/* Reads a word that the C runtime filled in at start. */
static bool have_hardware(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

uint32_t crc32c(uint32_t seed, const void *buf, size_t n)
{
    return have_hardware() ? crc32c_hardware(seed, buf, n) : crc32c_portable(seed, buf, n);
}
#else
uint32_t crc32c(uint32_t seed, const void *buf, size_t n)
{
    return crc32c_portable(seed, buf, n);
}
#endif

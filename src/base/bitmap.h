/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps: arrays of uint64_t, bit n is bit n%64 of word n/64. The caller allocates bitmap_words(bits) words
 * and keeps the bits past the end of the last word clear. Functions named _atomic may race with each other;
 * the others need a lock or a single user.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_BIT(bit) (UINT64_C(1) << ((bit)&63))

static inline size_t bitmap_words(uint64_t bits)
{
    return (bits + 63) / 64;
}

static inline size_t bitmap_bytes(uint64_t bits)
{
    return bitmap_words(bits) * sizeof(uint64_t);
}

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
    return map[bit / 64] & BITMAP_BIT(bit);
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= BITMAP_BIT(bit);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~BITMAP_BIT(bit);
}

static inline bool bitmap_test_atomic(const uint64_t *map, uint64_t bit)
{
    return __atomic_load_n(&map[bit / 64], __ATOMIC_ACQUIRE) & BITMAP_BIT(bit);
}

/* What was written before it is visible to whoever takes the bit. Returns whether it was set already. */
static inline bool bitmap_set_atomic(uint64_t *map, uint64_t bit)
{
    return __atomic_fetch_or(&map[bit / 64], BITMAP_BIT(bit), __ATOMIC_ACQ_REL) & BITMAP_BIT(bit);
}

static inline bool bitmap_clear_atomic(uint64_t *map, uint64_t bit)
{
    return __atomic_fetch_and(&map[bit / 64], ~BITMAP_BIT(bit), __ATOMIC_ACQ_REL) & BITMAP_BIT(bit);
}

/* Reads and clears a whole word; a cheap look first, as most words are zero. */
static inline uint64_t bitmap_take_word_atomic(uint64_t *word)
{
    if (!__atomic_load_n(word, __ATOMIC_RELAXED))
        return 0;
    return __atomic_exchange_n(word, 0, __ATOMIC_ACQ_REL);
}

/* [from, from + count) */
static inline void bitmap_set_range(uint64_t *map, uint64_t from, uint64_t count)
{
    for (uint64_t end = from + count; from < end;) {
        if (from % 64 == 0 && end - from >= 64) {
            map[from / 64] = UINT64_MAX;
            from += 64;
        } else {
            bitmap_set(map, from++);
        }
    }
}

/* The first set bit at or after from; bits when there is none. */
static inline uint64_t bitmap_find_next(const uint64_t *map, uint64_t bits, uint64_t from)
{
    uint64_t word;
    size_t i = from / 64;

    if (from >= bits)
        return bits;
    word = map[i] & (UINT64_MAX << (from % 64));
    while (!word) {
        if (++i >= bitmap_words(bits))
            return bits;
        word = map[i];
    }
    from = (uint64_t)i * 64 + (uint64_t)__builtin_ctzll(word);
    return from < bits ? from : bits;
}

/* dst |= src */
static inline void bitmap_or(uint64_t *dst, const uint64_t *src, uint64_t bits)
{
    for (size_t i = 0; i < bitmap_words(bits); i++)
        dst[i] |= src[i];
}

static inline uint64_t bitmap_popcount(const uint64_t *map, uint64_t bits)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < bitmap_words(bits); i++)
        sum += (uint64_t)__builtin_popcountll(map[i]);
    return sum;
}

#endif

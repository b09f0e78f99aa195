/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/page_scan.h"

#include <immintrin.h>
#include <string.h>

#define PAGE 4096
#define LINE 64

/* Which clone is called is decided while the program is loaded, when ThreadSanitizer cannot run yet. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define CLONES
#endif
#endif
#if !defined(CLONES) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#elif !defined(CLONES)
#define CLONES
#endif

#define CHUNK (8 * LINE)

CLONES static uint64_t chunk_or(const uint64_t *chunk)
{
    uint64_t sum = 0;

    for (int i = 0; i < CHUNK / 8; i++)
        sum |= chunk[i];
    return sum;
}

bool page_is_zero(const void *page)
{
    const uint64_t *words = page;

    /* Most pages that are not zero show it in their first words. */
    if (words[0] | words[1] | words[8])
        return false;
    for (int i = 0; i < PAGE / 8; i += CHUNK / 8) {
        if (chunk_or(words + i))
            return false;
    }
    return true;
}

static uint64_t diff_plain(const char *a, const char *b)
{
    uint64_t mask = 0;

    for (int i = 0; i < PAGE / LINE; i++)
        mask |= (uint64_t)(memcmp(a + i * LINE, b + i * LINE, LINE) != 0) << i;
    return mask;
}

__attribute__((target("avx512f"))) static uint64_t diff_avx512(const char *a, const char *b)
{
    uint64_t mask = 0;

    for (int i = 0; i < PAGE / LINE; i++) {
        __m512i x = _mm512_loadu_si512(a + i * LINE), y = _mm512_loadu_si512(b + i * LINE);
        mask |= (uint64_t)(_mm512_cmpneq_epi64_mask(x, y) != 0) << i;
    }
    return mask;
}

__attribute__((target("avx2"))) static uint64_t diff_avx2(const char *a, const char *b)
{
    uint64_t mask = 0;

    for (int i = 0; i < PAGE / LINE; i++) {
        const __m256i *x = (const void *)(a + i * LINE), *y = (const void *)(b + i * LINE);
        __m256i d = _mm256_or_si256(_mm256_xor_si256(_mm256_loadu_si256(x), _mm256_loadu_si256(y)),
                                    _mm256_xor_si256(_mm256_loadu_si256(x + 1), _mm256_loadu_si256(y + 1)));
        mask |= (uint64_t)(!_mm256_testz_si256(d, d)) << i;
    }
    return mask;
}

uint64_t page_diff(const void *a, const void *b)
{
    if (__builtin_cpu_supports("avx512f"))
        return diff_avx512(a, b);
    if (__builtin_cpu_supports("avx2"))
        return diff_avx2(a, b);
    return diff_plain(a, b);
}

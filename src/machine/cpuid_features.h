/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of CPUID feature bits, and the words they are in.
 */
#ifndef MACHINE_CPUID_FEATURES_H
#define MACHINE_CPUID_FEATURES_H

#include <stddef.h>
#include <stdint.h>

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* A register that holds feature bits, and nothing else. */
struct cpuid_word {
    uint32_t function, index;
    enum cpuid_register reg;
    uint32_t hidden;   /* bits that no guest is offered */
    uint32_t base;     /* bits that every model lets through where the host has them */
    uint32_t level[3]; /* bits that v2, v3, v4 add; the host must have them */
};

extern const struct cpuid_word cpuid_words[];
extern const size_t cpuid_word_count;

/* "avx2", or "CPUID 0x7.0 ebx bit 31"; into buf. */
const char *cpuid_bit_name(const struct cpuid_word *w, unsigned bit, char *buf, size_t size);

#endif

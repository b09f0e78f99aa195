/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/cpuid_features.h"

#include <stdio.h>

#define B(n) (UINT32_C(1) << (n))

/*
 * hidden, leaf 1 ecx: MONITOR (3), VMX (5), SMX (6), PDCM (15: performance counters), DCA (18); edx: debug
 * store (21); leaf 7 ebx: SGX (2), HLE and RTM are left; leaf 0x80000001 ecx: SVM (2), performance counters
 * (23, 24, 28), IBS (10); KVM's word keeps the two clocks (0, 3), no-io-delay (1) and the stable clock (24).
 * Each goes from hidden once its state has a save rule and a test.
 */
const struct cpuid_word cpuid_words[] = {
    {.function = 1,
     .reg = CPUID_ECX,
     .hidden = B(3) | B(5) | B(6) | B(15) | B(18),
     .base = B(1) | B(21) | B(24) | B(25) | B(30) | B(31),
     .level = {B(0) | B(9) | B(13) | B(19) | B(20) | B(23), B(12) | B(22) | B(26) | B(28) | B(29), 0}},
    {.function = 1, .reg = CPUID_EDX, .hidden = B(21) | B(22) | B(27) | B(29) | B(31), .base = UINT32_MAX},
    {.function = 6, .reg = CPUID_EAX, .hidden = ~B(2), .base = B(2)},
    {.function = 7,
     .reg = CPUID_EBX,
     .hidden = B(2) | B(12) | B(15) | B(25),
     .base = B(0) | B(7) | B(9) | B(10) | B(20),
     .level = {0, B(3) | B(5) | B(8), B(16) | B(17) | B(28) | B(30) | B(31)}},
    {.function = 7, .reg = CPUID_ECX, .hidden = B(5), .base = 0},
    {.function = 7, .reg = CPUID_EDX, .hidden = B(5) | B(19) | B(22) | B(24) | B(25), .base = B(10)},
    {.function = 7, .index = 1, .reg = CPUID_EAX, .hidden = B(21), .base = 0},
    {.function = 7, .index = 1, .reg = CPUID_EDX, .base = 0},
    {.function = 7, .index = 2, .reg = CPUID_EDX, .base = 0},
    {.function = 0xd, .index = 1, .reg = CPUID_EAX, .hidden = B(3) | B(4), .base = B(0) | B(1) | B(2)},
    {.function = 0x14, .reg = CPUID_EBX, .hidden = UINT32_MAX},
    {.function = 0x80000001,
     .reg = CPUID_ECX,
     .hidden = B(2) | B(10) | B(12) | B(13) | B(15) | B(23) | B(24) | B(26) | B(27) | B(28) | B(29),
     .base = B(8),
     .level = {B(0), B(5), 0}},
    {.function = 0x80000001, .reg = CPUID_EDX, .base = UINT32_MAX},
    {.function = 0x80000007, .reg = CPUID_EDX, .hidden = ~B(8), .base = B(8)},
    {.function = 0x80000008, .reg = CPUID_EBX, .base = B(9)},
    {.function = 0x8000000a, .reg = CPUID_EDX, .hidden = UINT32_MAX},
    {.function = 0x80000021, .reg = CPUID_EAX, .base = B(2) | B(6)},
    {.function = 0x40000001, .reg = CPUID_EAX, .hidden = ~(B(0) | B(1) | B(3) | B(24)), .base = UINT32_MAX},
};
const size_t cpuid_word_count = sizeof(cpuid_words) / sizeof(cpuid_words[0]);

struct word_names {
    uint32_t function, index;
    enum cpuid_register reg;
    const char *names[32];
};

static const struct word_names names[] = {
    {1, 0, CPUID_ECX, {"sse3",   "pclmulqdq", "dtes64", "monitor",      "ds-cpl", "vmx",    "smx",
                       "est",    "tm2",       "ssse3",  "cid",          "sdbg",   "fma",    "cx16",
                       "xtpr",   "pdcm",      NULL,     "pcid",         "dca",    "sse4.1", "sse4.2",
                       "x2apic", "movbe",     "popcnt", "tsc-deadline", "aes",    "xsave",  "osxsave",
                       "avx",    "f16c",      "rdrand", "hypervisor"}},
    {1, 0, CPUID_EDX, {"fpu",  "vme",  "de",   "pse", "tsc",  "msr", "pae",   "mce", "cx8",     "apic", NULL,
                       "sep",  "mtrr", "pge",  "mca", "cmov", "pat", "pse36", "pn",  "clflush", NULL,   "ds",
                       "acpi", "mmx",  "fxsr", "sse", "sse2", "ss",  "ht",    "tm",  "ia64",    "pbe"}},
    {7,
     0,
     CPUID_EBX,
     {"fsgsbase",   "tsc-adjust", "sgx",        "bmi1",     "hle",      "avx2",     "fdp-excptn-only",
      "smep",       "bmi2",       "erms",       "invpcid",  "rtm",      "cqm",      "zero-fcs-fds",
      "mpx",        "rdt-a",      "avx512f",    "avx512dq", "rdseed",   "adx",      "smap",
      "avx512ifma", "pcommit",    "clflushopt", "clwb",     "intel-pt", "avx512pf", "avx512er",
      "avx512cd",   "sha-ni",     "avx512bw",   "avx512vl"}},
    {7,
     0,
     CPUID_ECX,
     {"prefetchwt1",
      "avx512vbmi",
      "umip",
      "pku",
      "ospke",
      "waitpkg",
      "avx512vbmi2",
      "shstk",
      "gfni",
      "vaes",
      "vpclmulqdq",
      "avx512vnni",
      "avx512bitalg",
      "tme",
      "avx512-vpopcntdq",
      NULL,
      "la57",
      [22] = "rdpid",
      [24] = "bus-lock-detect",
      [25] = "cldemote",
      [27] = "movdiri",
      [28] = "movdir64b"}},
    {7,
     0,
     CPUID_EDX,
     {[2] = "avx512-4vnniw",
      [3] = "avx512-4fmaps",
      [4] = "fsrm",
      [8] = "avx512-vp2intersect",
      [10] = "md-clear",
      [14] = "serialize",
      [16] = "tsxldtrk",
      [20] = "ibt",
      [22] = "amx-bf16",
      [23] = "avx512-fp16",
      [24] = "amx-tile",
      [25] = "amx-int8",
      [26] = "spec-ctrl",
      [27] = "stibp",
      [28] = "l1d-flush",
      [29] = "arch-capabilities",
      [30] = "core-capability",
      [31] = "ssbd"}},
    {0xd, 1, CPUID_EAX, {"xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd"}},
    {0x80000001, 0, CPUID_ECX, {"lahf-lm", "cmp-legacy", "svm",         "extapic",       "cr8-legacy",
                                "lzcnt",   "sse4a",      "misalignsse", "3dnowprefetch", "osvw",
                                "ibs",     "xop",        "skinit",      "wdt",           NULL,
                                "lwp",     "fma4",       "tce",         [21] = "tbm",    [22] = "topoext"}},
    {0x80000001,
     0,
     CPUID_EDX,
     {[11] = "syscall",
      [20] = "nx",
      [22] = "mmxext",
      [25] = "fxsr-opt",
      [26] = "pdpe1gb",
      [27] = "rdtscp",
      [29] = "lm",
      [30] = "3dnowext",
      [31] = "3dnow"}},
    {0x80000007, 0, CPUID_EDX, {[8] = "invtsc"}},
    {0x40000001,
     0,
     CPUID_EAX,
     {"kvmclock", "kvm-nopiodelay", "kvm-mmu-op", "kvmclock2", "kvm-asyncpf", "kvm-steal-time", "kvm-pv-eoi",
      "kvm-pv-unhalt", [9] = "kvm-pv-tlb-flush", [11] = "kvm-pv-ipi", [24] = "kvmclock-stable"}},
};

static const char *const register_names[] = {"eax", "ebx", "ecx", "edx"};

const char *cpuid_bit_name(const struct cpuid_word *w, unsigned bit, char *buf, size_t size)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].function == w->function && names[i].index == w->index && names[i].reg == w->reg &&
            names[i].names[bit])
            return names[i].names[bit];
    snprintf(buf, size, "CPUID 0x%x.%u %s bit %u", w->function, w->index, register_names[w->reg], bit);
    return buf;
}

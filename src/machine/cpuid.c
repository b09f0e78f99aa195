/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/cpuid.h"
#include "machine/cpuid_features.h"

#include <stdio.h>
#include <string.h>

#define LEAF_FEATURES  1u
#define LEAF_CACHES    4u
#define LEAF_TOPOLOGY  0xbu
#define LEAF_XSAVE     0xdu
#define LEAF_TOPOLOGY2 0x1fu

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_TIMING     0x40000010u
#define LAPIC_TIMER_KHZ 1000000u /* of KVM's LAPIC */

#define ECX_TSC_DEADLINE (1u << 24)
#define ECX_HYPERVISOR   (1u << 31)

#define XCR0_X87_SSE 3u
#define XCR0_AVX     7u
#define XCR0_AVX512  0xe7u

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, enum cpuid_register reg)
{
    uint32_t *regs[] = {
        [CPUID_EAX] = &e->eax, [CPUID_EBX] = &e->ebx, [CPUID_ECX] = &e->ecx, [CPUID_EDX] = &e->edx};

    return regs[reg];
}

const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid *c, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->entries[i].function == function && c->entries[i].index == index)
            return &c->entries[i];
    return NULL;
}

static struct kvm_cpuid_entry2 *find_mutable(struct cpuid *c, uint32_t function, uint32_t index)
{
    return (struct kvm_cpuid_entry2 *)cpuid_find(c, function, index);
}

static uint32_t word_value(const struct cpuid *c, const struct cpuid_word *w)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(c, w->function, w->index);

    return e ? *reg_of((struct kvm_cpuid_entry2 *)e, w->reg) : 0;
}

/* Two that KVM gives its guests without naming them: that there is a hypervisor, and the deadline timer of
 * its LAPIC. */
static void add_unnamed(const struct kvm *k, struct cpuid *c)
{
    struct kvm_cpuid_entry2 *e = find_mutable(c, LEAF_FEATURES, 0);

    if (!e)
        return;
    e->ecx |= ECX_HYPERVISOR;
    if (kvm_has(k, KVM_CAP_TSC_DEADLINE_TIMER))
        e->ecx |= ECX_TSC_DEADLINE;
}

bool cpuid_supported(const struct kvm *k, struct cpuid *ret, Error **errp)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
    } all = {.head.nent = CPUID_ENTRIES_MAX};

    if (!kvm_call(k->fd, KVM_GET_SUPPORTED_CPUID, &all, "KVM_GET_SUPPORTED_CPUID", errp))
        return false;
    ret->count = all.head.nent;
    memcpy(ret->entries, all.entries, all.head.nent * sizeof(ret->entries[0]));
    add_unnamed(k, ret);
    return true;
}

uint64_t cpuid_xcr0(const struct cpuid *c)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(c, LEAF_XSAVE, 0);

    return e ? (uint64_t)e->edx << 32 | e->eax : XCR0_X87_SSE;
}

static void remove_function(struct cpuid *c, uint32_t function)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->count; i++)
        if (c->entries[i].function != function)
            c->entries[kept++] = c->entries[i];
    c->count = kept;
}

void cpuid_mask(struct cpuid *c)
{
    struct kvm_cpuid_entry2 *e;

    for (size_t i = 0; i < cpuid_word_count; i++)
        if ((e = find_mutable(c, cpuid_words[i].function, cpuid_words[i].index)))
            *reg_of(e, cpuid_words[i].reg) &= ~cpuid_words[i].hidden;
    remove_function(c, 0xa);  /* performance counters */
    remove_function(c, 0x12); /* SGX */
    remove_function(c, 0x14); /* processor trace */
    remove_function(c, 0x1d); /* AMX tiles */
    remove_function(c, 0x1e);
    remove_function(c, 0x8000000a); /* SVM */
    remove_function(c, 0x80000022); /* performance counters */
}

/* One level of threads, one of cores, and the end: what cpuid_for_cpu() fills in. */
static void make_topology(struct cpuid *c)
{
    const struct kvm_cpuid_entry2 *first = cpuid_find(c, 0, 0);
    bool known = first && first->eax >= LEAF_TOPOLOGY;

    remove_function(c, LEAF_TOPOLOGY);
    remove_function(c, LEAF_TOPOLOGY2);
    for (uint32_t i = 0; known && i < 3 && c->count < CPUID_ENTRIES_MAX; i++)
        c->entries[c->count++] = (struct kvm_cpuid_entry2){
            .function = LEAF_TOPOLOGY, .index = i, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

/* Components above the mask go; the sizes are those of what is left. */
static void limit_xcr0(struct cpuid *c, uint64_t mask)
{
    struct kvm_cpuid_entry2 *e = find_mutable(c, LEAF_XSAVE, 0);
    uint32_t kept = 0, size = 576;

    if (!e)
        return;
    e->eax &= (uint32_t)mask;
    e->edx &= (uint32_t)(mask >> 32);
    mask = (uint64_t)e->edx << 32 | e->eax;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct kvm_cpuid_entry2 *x = &c->entries[i];

        if (x->function == LEAF_XSAVE && x->index >= 2) {
            if (x->index >= 64 || !(mask >> x->index & 1))
                continue;
            if (x->eax + x->ebx > size)
                size = x->eax + x->ebx;
        }
        c->entries[kept++] = *x;
    }
    c->count = kept;
    e = find_mutable(c, LEAF_XSAVE, 0);
    e->ebx = e->ecx = size;
}

static bool apply_level(struct cpuid *c, int level, const char *model, Error **errp)
{
    char missing[512] = "", buf[40];
    size_t at = 0;

    for (size_t i = 0; i < cpuid_word_count; i++) {
        const struct cpuid_word *w = &cpuid_words[i];
        struct kvm_cpuid_entry2 *e = find_mutable(c, w->function, w->index);
        uint32_t need = 0, lacks;

        for (int l = 0; l <= level; l++)
            need |= w->level[l];
        lacks = need & ~(e ? *reg_of(e, w->reg) : 0);
        for (unsigned bit = 0; bit < 32; bit++)
            if (lacks >> bit & 1 && at < sizeof(missing) - sizeof(buf))
                at += (size_t)snprintf(missing + at, sizeof(missing) - at, " %s",
                                       cpuid_bit_name(w, bit, buf, sizeof(buf)));
        if (e)
            *reg_of(e, w->reg) &= need | w->base;
    }
    if (!at)
        return true;
    error_setg(errp, "--cpu %s: this host lacks:%s (use --cpu host)", model, missing);
    return false;
}

bool cpuid_make(const struct cpuid *supported, const char *model, struct cpuid *ret, Error **errp)
{
    static const uint64_t xcr0[] = {XCR0_X87_SSE, XCR0_AVX, XCR0_AVX512};

    *ret = *supported;
    cpuid_mask(ret);
    make_topology(ret);
    if (!strcmp(model, "host")) {
        limit_xcr0(ret, cpuid_xcr0(ret) & ~(UINT64_C(3) << 17)); /* without AMX */
        return true;
    }
    for (int level = 0; level < 3; level++) {
        const char name[] = {'v', (char)('2' + level), 0};

        if (strcmp(model, name))
            continue;
        limit_xcr0(ret, xcr0[level]);
        if (level == 0)
            remove_function(ret, LEAF_XSAVE);
        return apply_level(ret, level, model, errp);
    }
    error_setg(errp, "--cpu %s: unknown model (host, v2, v3 or v4)", model);
    return false;
}

void cpuid_add_timing(struct cpuid *c, uint32_t tsc_khz)
{
    struct kvm_cpuid_entry2 *first = find_mutable(c, LEAF_HYPERVISOR, 0);

    if (!first || c->count == CPUID_ENTRIES_MAX || cpuid_find(c, LEAF_TIMING, 0))
        return;
    if (first->eax < LEAF_TIMING)
        first->eax = LEAF_TIMING;
    c->entries[c->count++] =
        (struct kvm_cpuid_entry2){.function = LEAF_TIMING, .eax = tsc_khz, .ebx = LAPIC_TIMER_KHZ};
}

static void add_missing(char *text, size_t size, const char *name)
{
    size_t at = strlen(text);

    snprintf(text + at, size - at, " %s", name);
}

/* A component of the xsave area must lie where the guest believes that it lies. */
static void check_xsave(const struct cpuid *list, const struct cpuid *supported, char *missing, size_t size)
{
    uint64_t lacks = cpuid_xcr0(list) & ~cpuid_xcr0(supported);
    char name[32];

    for (unsigned i = 0; i < 64; i++) {
        const struct kvm_cpuid_entry2 *a = cpuid_find(list, LEAF_XSAVE, i),
                                      *b = cpuid_find(supported, LEAF_XSAVE, i);

        snprintf(name, sizeof(name), "xsave-component-%u", i);
        if (lacks >> i & 1)
            add_missing(missing, size, name);
        else if (i >= 2 && cpuid_xcr0(list) >> i & 1 && (!a || !b || a->eax != b->eax || a->ebx != b->ebx))
            add_missing(missing, size, name);
    }
}

bool cpuid_check(const struct cpuid *list, const struct cpuid *supported, Error **errp)
{
    const struct kvm_cpuid_entry2 *a = cpuid_find(list, 0, 0), *b = cpuid_find(supported, 0, 0);
    char missing[1024] = "", buf[40];

    if (!a || !b || a->ebx != b->ebx || a->ecx != b->ecx || a->edx != b->edx)
        add_missing(missing, sizeof(missing), "the same processor vendor");
    for (size_t i = 0; i < cpuid_word_count; i++) {
        const struct cpuid_word *w = &cpuid_words[i];
        uint32_t has = word_value(list, w), lacks = has & (~word_value(supported, w) | w->hidden);

        for (unsigned bit = 0; bit < 32; bit++)
            if (lacks >> bit & 1)
                add_missing(missing, sizeof(missing), cpuid_bit_name(w, bit, buf, sizeof(buf)));
    }
    check_xsave(list, supported, missing, sizeof(missing));
    if (!missing[0])
        return true;
    error_setg(errp,
               "the guest's processor has what this host lacks:%s (start the guest with --cpu v2 or v3)",
               missing);
    return false;
}

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;

    while (1u << bits < count)
        bits++;
    return bits;
}

/* Every processor is a core of one package. */
void cpuid_for_cpu(const struct cpuid *list, unsigned index, unsigned count, struct cpuid *ret)
{
    unsigned shift = bits_for(count);

    *ret = *list;
    for (uint32_t i = 0; i < ret->count; i++) {
        struct kvm_cpuid_entry2 *e = &ret->entries[i];

        switch (e->function) {
        case LEAF_FEATURES:
            e->ebx = (e->ebx & 0xffff) | (1u << shift & 0xff) << 16 | index << 24;
            e->edx = count > 1 ? e->edx | 1u << 28 : e->edx & ~(1u << 28);
            break;
        case LEAF_CACHES:
            if (e->eax &
                0x1f) /* cores of the package; who shares the cache: the last level all, the others nobody */
                e->eax = (e->eax & 0x3fff) | ((1u << shift) - 1) << 26 |
                         ((e->eax >> 5 & 7) >= 3 ? ((1u << shift) - 1) << 14 : 0);
            break;
        case LEAF_TOPOLOGY:
            e->eax = e->index == 1 ? shift : 0;
            e->ebx = e->index == 0 ? 1 : e->index == 1 ? count : 0;
            e->ecx = e->index | (e->index < 2 ? (e->index + 1) << 8 : 0);
            e->edx = index;
            break;
        case 0x80000008:
            e->ecx = shift << 12 | (count - 1);
            break;
        case 0x8000001e:
            e->eax = index;
            e->ebx = index;
            e->ecx = 0;
            break;
        default:
            break;
        }
    }
}

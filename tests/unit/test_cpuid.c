/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What processor a guest is given, and on which hosts it may go on. */
#include "machine/cpuid.h"

#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#define B(n)       (1u << (n))
#define INDEXED    KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define V3_ECX     (B(0) | B(9) | B(12) | B(13) | B(19) | B(20) | B(22) | B(23) | B(26) | B(28) | B(29))
#define VMX        B(5)
#define HYPERVISOR B(31)

/* A host with AVX-512, VMX, a PMU and every paravirtual feature. */
static struct cpuid host(void)
{
    struct cpuid c = {
        .count = 13,
        .entries = {
            {.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
            {.function = 1, .ebx = 0x00020800, .ecx = V3_ECX | VMX | B(21) | HYPERVISOR, .edx = 0x178bfbff},
            {.function = 7,
             .flags = INDEXED,
             .ebx = B(3) | B(5) | B(8) | B(16) | B(17) | B(28) | B(30) | B(31)},
            {.function = 0xa, .eax = 2},
            {.function = 0xb, .flags = INDEXED},
            {.function = 0xd, .flags = INDEXED, .eax = 0xe7, .ebx = 2688, .ecx = 2688},
            {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 256, .ebx = 576},
            {.function = 0xd, .index = 5, .flags = INDEXED, .eax = 64, .ebx = 1088},
            {.function = 0xd, .index = 6, .flags = INDEXED, .eax = 512, .ebx = 1152},
            {.function = 0xd, .index = 7, .flags = INDEXED, .eax = 1024, .ebx = 1664},
            {.function = 0x80000001, .ecx = B(0) | B(2) | B(5), .edx = B(11) | B(20) | B(29)},
            {.function = 0x40000000, .eax = 0x40000001},
            {.function = 0x40000001, .eax = 0xffffffff},
        }};

    return c;
}

static const struct kvm_cpuid_entry2 *leaf(const struct cpuid *c, uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(c, function, index);

    assert_non_null(e);
    return e;
}

static void test_masking(void **state)
{
    struct cpuid h = host(), c;

    (void)state;
    assert_true(cpuid_make(&h, "host", &c, NULL));
    assert_int_equal(leaf(&c, 1, 0)->ecx, V3_ECX | B(21) | HYPERVISOR);
    assert_int_equal(leaf(&c, 0x40000001, 0)->eax, B(0) | B(1) | B(3) | B(24));
    assert_int_equal(leaf(&c, 0x80000001, 0)->ecx, B(0) | B(5));
    assert_null(cpuid_find(&c, 0xa, 0));
    assert_int_equal(cpuid_xcr0(&c), 0xe7);
    assert_true(cpuid_check(&c, &h, NULL));
}

static void test_models(void **state)
{
    struct cpuid h = host(), c;
    Error *err = NULL;

    (void)state;
    assert_true(cpuid_make(&h, "v2", &c, NULL));
    assert_null(cpuid_find(&c, 0xd, 0));
    assert_int_equal(leaf(&c, 1, 0)->ecx & (B(26) | B(28)), 0);
    assert_true(cpuid_make(&h, "v3", &c, NULL));
    assert_int_equal(cpuid_xcr0(&c), 7);
    assert_null(cpuid_find(&c, 0xd, 5));
    assert_int_equal(leaf(&c, 0xd, 0)->ecx, 832);
    assert_int_equal(leaf(&c, 7, 0)->ebx, B(3) | B(5) | B(8));
    assert_true(cpuid_make(&h, "v4", &c, NULL));
    assert_int_equal(cpuid_xcr0(&c), 0xe7);

    h.entries[2].ebx &= ~B(16);
    assert_false(cpuid_make(&h, "v4", &c, &err));
    assert_non_null(strstr(error_get_pretty(err), "avx512f"));
    error_free(err);
    err = NULL;
    assert_false(cpuid_make(&h, "v5", &c, &err));
    error_free(err);
}

/* Each thing that is missing is named. */
static void test_check(void **state)
{
    struct cpuid h = host(), c, other = host();
    Error *err = NULL;

    (void)state;
    assert_true(cpuid_make(&h, "host", &c, NULL));
    other.entries[2].ebx &= ~(B(5) | B(31));
    other.entries[5].eax = 7;
    assert_false(cpuid_check(&c, &other, &err));
    assert_non_null(strstr(error_get_pretty(err), "avx2"));
    assert_non_null(strstr(error_get_pretty(err), "avx512vl"));
    assert_non_null(strstr(error_get_pretty(err), "xsave-component-5"));
    error_free(err);
    err = NULL;

    other = host();
    other.entries[6].ebx = 640; /* AVX registers somewhere else */
    assert_false(cpuid_check(&c, &other, &err));
    error_free(err);
    err = NULL;

    other = host();
    other.entries[0].ebx = 0x68747541;
    assert_false(cpuid_check(&c, &other, &err));
    assert_non_null(strstr(error_get_pretty(err), "vendor"));
    error_free(err);
    err = NULL;

    c.entries[1].ecx |= VMX; /* a stream that asks for what is masked */
    assert_false(cpuid_check(&c, &h, &err));
    assert_non_null(strstr(error_get_pretty(err), "vmx"));
    error_free(err);
    err = NULL;

    c.count = 0;
    assert_false(cpuid_check(&c, &h, &err));
    error_free(err);
}

static void test_topology(void **state)
{
    struct cpuid h = host(), c, third;

    (void)state;
    assert_true(cpuid_make(&h, "host", &c, NULL));
    cpuid_for_cpu(&c, 2, 3, &third);
    assert_int_equal(leaf(&third, 1, 0)->ebx >> 24, 2);
    assert_int_equal(leaf(&third, 1, 0)->ebx >> 16 & 0xff, 4);
    assert_int_equal(leaf(&third, 0xb, 0)->edx, 2);
    assert_int_equal(leaf(&third, 0xb, 1)->eax, 2);
    assert_int_equal(leaf(&third, 0xb, 1)->ebx, 3);
    assert_int_equal(leaf(&third, 0xb, 1)->ecx, 0x201);
    cpuid_for_cpu(&c, 0, 1, &third);
    assert_int_equal(leaf(&third, 0xb, 1)->eax, 0);
}

static void test_timing(void **state)
{
    struct cpuid h = host(), c;

    (void)state;
    assert_true(cpuid_make(&h, "host", &c, NULL));
    cpuid_add_timing(&c, 2700000);
    cpuid_add_timing(&c, 1); /* once */
    assert_int_equal(leaf(&c, 0x40000000, 0)->eax, 0x40000010);
    assert_int_equal(leaf(&c, 0x40000010, 0)->eax, 2700000);
    assert_true(cpuid_check(&c, &h, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masking),  cmocka_unit_test(test_models), cmocka_unit_test(test_check),
        cmocka_unit_test(test_topology), cmocka_unit_test(test_timing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

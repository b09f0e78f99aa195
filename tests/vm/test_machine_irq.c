/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that lives on interrupts loses none: not in pauses, and not when it moves to another machine. */
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DISK_NUMBERS (65536u * 2) /* 1 MiB */

static char disk_path[] = "/tmp/perdure-irq-disk.XXXXXX";

/* The image that the guest expects: 0, 1, 2, ... */
static int make_disk(void **state)
{
    int fd = mkstemp(disk_path);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    (void)state;
    if (!f)
        return 1;
    for (uint64_t i = 0; i < DISK_NUMBERS; i++)
        fwrite(&i, sizeof(i), 1, f);
    return fclose(f);
}

static int remove_disk(void **state)
{
    (void)state;
    return unlink(disk_path);
}

static Machine *boot(int cpus, const char *cmdline)
{
    struct machine_config *c = vm_prepare("irq", cpus, cmdline);
    Machine *m;

    c->disk_count = c->net_count = 1;
    snprintf(c->disks[0].id, sizeof(c->disks[0].id), "disk0");
    snprintf(c->disks[0].path, sizeof(c->disks[0].path), "%s", disk_path);
    snprintf(c->nets[0].id, sizeof(c->nets[0].id), "net0");
    m = vm_boot_prepared();
    vm_wait_console("irq: running");
    vm_wait_running(m);
    return m;
}

static uint64_t disk_reads(Machine *m)
{
    return vm_status(m)->irq.completions[GUEST_IRQ_BLK];
}

/* The disk and every timer go on. */
static void wait_alive(Machine *m, unsigned cpus)
{
    uint64_t reads = disk_reads(m), ticks[GUEST_CPUS_MAX];

    for (unsigned i = 0; i < cpus; i++)
        ticks[i] = vm_status(m)->irq.interrupts[GUEST_IRQ_TIMER0 + i];
    for (int ms = 0;; ms++) {
        bool all = disk_reads(m) > reads;

        for (unsigned i = 0; i < cpus; i++)
            all &= vm_status(m)->irq.interrupts[GUEST_IRQ_TIMER0 + i] > ticks[i];
        if (vm_status(m)->errors || ms > 20000)
            fail_msg("the guest stands still or found an error: %u at %lu", vm_status(m)->error,
                     vm_status(m)->error_where);
        if (all)
            return;
        vm_sleep_ms(1);
    }
}

static void pauses(int cpus, const char *cmdline)
{
    Machine *m = boot(cpus, cmdline);

    for (int i = 0; i < 300; i++) {
        vm_sleep_ms(1);
        vm_pause(m);
        if (i % 20 == 0)
            vm_sleep_ms(15);
        vm_resume(m);
    }
    wait_alive(m, cpus);
    vm_end(m);
}

static void test_pauses(void **state)
{
    (void)state;
    pauses(1, "timer=periodic");
    pauses(2, "timer=deadline cpus=2");
    pauses(2, "timer=periodic cpus=2 idle=halt");
}

static void moves(int cpus, const char *cmdline)
{
    Machine *m = boot(cpus, cmdline);

    for (int i = 0; i < 8; i++) {
        vm_sleep_ms(5 + 3 * i);
        m = vm_move(m);
        wait_alive(m, cpus);
    }
    vm_end(m);
}

static void test_moves(void **state)
{
    (void)state;
    moves(1, "timer=periodic");
    moves(1, "timer=deadline idle=halt");
    moves(2, "timer=deadline cpus=2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pauses), cmocka_unit_test(test_moves)};

    return cmocka_run_group_tests(tests, make_disk, remove_disk);
}

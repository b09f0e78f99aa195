/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that keeps a disk busy, through pauses and moves to another machine, on both engines: every request
 * completes, and what is read is what was written.
 */
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define IMAGE_SIZE (4u << 20)

static char path[] = "/tmp/perdure-vm-disk.XXXXXX";

static int make_image(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    if (fd < 0 || ftruncate(fd, IMAGE_SIZE))
        return 1;
    return close(fd);
}

static int remove_image(void **state)
{
    (void)state;
    return unlink(path);
}

static Machine *boot(const char *cmdline)
{
    struct machine_config *c = vm_prepare("disk", 1, cmdline);
    Machine *m;

    c->disk_count = 1;
    snprintf(c->disks[0].id, sizeof(c->disks[0].id), "disk0");
    snprintf(c->disks[0].path, sizeof(c->disks[0].path), "%s", path);
    m = vm_boot_prepared();
    vm_wait_console("disk: running");
    vm_wait_running(m);
    return m;
}

/* The guest reports at its end, and stands still when something was wrong. */
static void wait_done(Machine *m)
{
    for (int ms = 0; !vm_status(m)->disk.done; ms++) {
        if (vm_status(m)->errors || ms > 60000)
            fail_msg("error %u at sector %lu, have %lu, want %lu; %lu requests", vm_status(m)->error,
                     vm_status(m)->error_where, vm_status(m)->error_have, vm_status(m)->error_want,
                     vm_status(m)->disk.operations);
        vm_sleep_ms(1);
    }
    assert_true(vm_status(m)->disk.operations > 0);
}

static void check_image(void)
{
    FILE *f = fopen(path, "rb");
    uint64_t sector[64];

    for (uint64_t s = 0; s < IMAGE_SIZE / sizeof(sector); s++) {
        assert_int_equal(fread(sector, sizeof(sector), 1, f), 1);
        assert_int_equal(sector[0], 64 * s);
    }
    fclose(f);
}

/* All of it in order, flushed now and then; then in any order. */
static void test_writes(void **state)
{
    Machine *m = boot("op=write order=sequential block=64K depth=8 flush=32 seconds=2");

    (void)state;
    for (int i = 0; i < 200 && !vm_status(m)->disk.done; i++) {
        vm_sleep_ms(2);
        vm_pause(m);
        vm_resume(m);
    }
    wait_done(m);
    assert_true(vm_status(m)->disk.flushes > 0);
    vm_end(m);
    check_image();
}

static void test_moves(void **state)
{
    static const char *const jobs[] = {"op=read block=4K depth=16 seconds=1",
                                       "op=write block=4K depth=16 seconds=1",
                                       "op=read block=512K depth=8 seconds=1"};

    (void)state;
    for (unsigned job = 0; job < 3; job++) {
        Machine *m = boot(jobs[job]);

        for (int i = 0; i < 6 && !vm_status(m)->disk.done; i++) {
            vm_sleep_ms(5 + 3 * i);
            m = vm_move(m);
        }
        wait_done(m);
        vm_end(m);
    }
    check_image();
}

static int use_threads(void **state)
{
    (void)state;
    return setenv("PERDURE_DISK_ENGINE", "threads", 1);
}

static int use_best(void **state)
{
    (void)state;
    return unsetenv("PERDURE_DISK_ENGINE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_writes, use_best),
        cmocka_unit_test_setup(test_moves, use_best),
        cmocka_unit_test_setup_teardown(test_writes, use_threads, use_best),
        cmocka_unit_test_setup_teardown(test_moves, use_threads, use_best),
    };

    return cmocka_run_group_tests(tests, make_image, remove_image);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may use an image together with whom: our own, and QEMU's programs.
 */
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/task.h"

#define SIZE (1u << 20)

static char path[64];

static void make_image(const char *folder, size_t size)
{
    int fd;

    snprintf(path, sizeof(path), "%s/perdure-test-raw-XXXXXX", folder);
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    make_image("/tmp", SIZE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static Block *try_open(bool readonly, Error **errp)
{
    return block_raw_open(&(struct block_raw_options){.id = "root", .path = path, .readonly = readonly},
                          errp);
}

static void assert_refused(bool readonly)
{
    Error *err = NULL;

    assert_null(try_open(readonly, &err));
    assert_non_null(strstr(error_get_pretty(err), "disk root"));
    assert_non_null(strstr(error_get_pretty(err), path));
    assert_non_null(strstr(error_get_pretty(err), "stop that"));
    error_free(err);
}

static void test_locks(void **state)
{
    Block *first, *second;

    (void)state;
    first = try_open(false, NULL);
    assert_non_null(first);
    assert_refused(false);
    assert_refused(true);
    block_close(first);
    first = try_open(true, NULL);
    second = try_open(true, NULL);
    assert_true(first && second);
    assert_refused(false);
    block_close(first);
    assert_refused(false);
    block_close(second);
    first = try_open(false, NULL);
    assert_non_null(first);
    block_close(first);
}

static Block *open_elsewhere(void)
{
    Block *b =
        block_raw_open(&(struct block_raw_options){.id = "root", .path = path, .elsewhere = true}, NULL);

    assert_non_null(b);
    return b;
}

static void hold_fails(Block *b, enum block_raw_hold how)
{
    Error *err = NULL;

    assert_false(block_raw_hold(b, how, &err));
    assert_non_null(strstr(error_get_pretty(err), path));
    error_free(err);
}

/* From one host to the other, and at no moment in between to a third one. */
static void test_handed_on(void **state)
{
    Block *here = try_open(false, NULL), *there = open_elsewhere(), *late = open_elsewhere();
    uint8_t octet = 1;

    (void)state;
    hold_fails(there, BLOCK_RAW_HELD); /* not before it is offered */
    assert_true(block_write(here, 0, &octet, 1, NULL));
    assert_false(block_read(there, 0, &octet, 1, NULL));
    assert_true(block_raw_hold(here, BLOCK_RAW_OFFERED, NULL));
    assert_refused(false);
    assert_refused(true);
    assert_false(block_write(here, 0, &octet, 1, NULL));
    assert_true(block_raw_hold(there, BLOCK_RAW_HELD, NULL));
    assert_refused(false);
    hold_fails(here, BLOCK_RAW_HELD);
    hold_fails(late, BLOCK_RAW_HELD);
    assert_true(block_raw_hold(here, BLOCK_RAW_LEFT, NULL));
    assert_refused(true);
    hold_fails(here, BLOCK_RAW_HELD);
    assert_true(block_write(there, 0, &octet, 1, NULL));
    assert_false(block_write(here, 0, &octet, 1, NULL));
    block_close(there);
    block_close(here); /* what is not held keeps nobody out */
    here = try_open(false, NULL);
    assert_non_null(here);
    block_close(here);
    block_close(late);
}

/* Nobody takes it, or he gives it back: it is here again, whoever came by and went against the rules. */
static void test_taken_back(void **state)
{
    Block *here = try_open(false, NULL), *there = open_elsewhere();
    struct flock byte = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
    uint8_t octet = 1;
    int rude;

    (void)state;
    assert_true(block_raw_hold(here, BLOCK_RAW_OFFERED, NULL));
    assert_true(block_raw_hold(here, BLOCK_RAW_OFFERED, NULL)); /* it is */
    assert_true(block_raw_hold(there, BLOCK_RAW_HELD, NULL));
    hold_fails(here, BLOCK_RAW_HELD);
    assert_refused(false);
    assert_true(block_raw_hold(there, BLOCK_RAW_LEFT, NULL));
    assert_refused(false); /* still offered */
    rude = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(rude, F_OFD_SETLK, &byte), 0); /* forbids writing, and did not look */
    hold_fails(there, BLOCK_RAW_HELD);
    assert_true(block_raw_hold(here, BLOCK_RAW_HELD, NULL));
    assert_true(block_write(here, 0, &octet, 1, NULL));
    close(rude);
    hold_fails(there, BLOCK_RAW_HELD);
    assert_refused(true);
    block_close(here);
    assert_true(block_raw_hold(there, BLOCK_RAW_HELD, NULL)); /* its host died */
    block_close(there);
}

/* A wrong path, or locks that do not reach from host to host, are found before anything moves. */
static void test_is_it_the_one_over_there(void **state)
{
    Block *there = open_elsewhere(), *here;
    Error *err = NULL;

    (void)state;
    assert_false(block_raw_check_elsewhere(there, &err));
    assert_non_null(strstr(error_get_pretty(err), path));
    error_free(err);
    here = try_open(true, NULL);
    assert_false(block_raw_check_elsewhere(there, NULL));
    block_close(here);
    here = try_open(false, NULL);
    assert_true(block_raw_check_elsewhere(there, NULL));
    block_close(here);
    block_close(there);
}

static void test_refusals(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_null(block_raw_open(&(struct block_raw_options){.id = "a", .path = "/nonexistent/image"}, &err));
    assert_non_null(strstr(error_get_pretty(err), "/nonexistent/image"));
    error_free(err);
    err = NULL;
    assert_null(
        block_raw_open(&(struct block_raw_options){.id = "a", .path = "/tmp", .readonly = true}, &err));
    assert_non_null(strstr(error_get_pretty(err), "neither"));
    error_free(err);
}

/* The exit status of one of QEMU's programs on the image; its words are in the test's log. */
static int run(const char *format)
{
    char command[256];
    int status;

    snprintf(command, sizeof(command), format, path);
    status = system(command);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 126); /* it is installed */
    return WEXITSTATUS(status);
}

#define QEMU_WRITES "qemu-io -f raw -c 'write 0 512' %s"
#define QEMU_READS  "p=%s; qemu-img convert -f raw -O raw $p $p.copy; s=$?; rm -f $p.copy; exit $s"

static void test_qemu_is_refused(void **state)
{
    Block *b = try_open(false, NULL);

    (void)state;
    assert_non_null(b);
    assert_int_not_equal(run(QEMU_WRITES), 0);
    assert_int_not_equal(run("qemu-img resize -f raw %s 2M"), 0);
    assert_int_not_equal(run(QEMU_READS), 0);
    assert_int_equal(run("qemu-img info -U -f raw %s"), 0); /* who knows what he does may look */
    block_close(b);
    b = try_open(true, NULL);
    assert_int_not_equal(run(QEMU_WRITES), 0);
    assert_int_equal(run(QEMU_READS), 0);
    block_close(b);
    assert_int_equal(run(QEMU_WRITES), 0);
}

static pid_t start_qemu(const char *options)
{
    char drive[128];
    pid_t pid = fork();

    if (pid == 0) {
        snprintf(drive, sizeof(drive), "if=none,id=d,format=raw,file=%s%s", path, options);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("qemu-system-x86_64", "qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-accel",
               "tcg", "-drive", drive, "-device", "virtio-blk-pci,drive=d", (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* QEMU's machine has the image once somebody forbids others to write it. */
static void wait_for_qemu(pid_t pid)
{
    struct flock fl;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    do {
        task_sleep_until(clock_now() + 10 * NS_PER_MS);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
        assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
    } while (fl.l_type == F_UNLCK);
    close(fd);
}

static void test_machine_of_qemu(void **state)
{
    pid_t pid = start_qemu("");
    Block *b;

    (void)state;
    wait_for_qemu(pid);
    assert_refused(false);
    assert_refused(true);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);

    pid = start_qemu(",readonly=on");
    wait_for_qemu(pid);
    assert_refused(false);
    b = try_open(true, NULL); /* two readers */
    assert_non_null(b);
    block_close(b);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

#define WITH_IMAGE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_IMAGE(test_locks),           WITH_IMAGE(test_handed_on),
        WITH_IMAGE(test_taken_back),      WITH_IMAGE(test_is_it_the_one_over_there),
        WITH_IMAGE(test_refusals),        WITH_IMAGE(test_qemu_is_refused),
        WITH_IMAGE(test_machine_of_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw node: each engine with and without a loop, the calls that a request is made of, and new images.
 */
#include "block/raw_group.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

static Block *open_with(enum block_raw_engine engine, Loop *loop)
{
    Error *err = NULL;
    Block *b = block_raw_open(
        &(struct block_raw_options){.id = "root", .path = path, .engine = engine, .loop = loop}, &err);

    if (!b)
        fail_msg("%s", error_get_pretty(err));
    return b;
}

static void close_block(Block *b, Loop *loop)
{
    if (loop)
        loop_lock(loop);
    block_drain(b);
    block_close(b);
    if (loop)
        loop_unlock(loop);
}

/* Runs fn with both engines, with and without a loop. */
static void in_each_way(void (*fn)(Block *b, Loop *loop))
{
    for (int engine = BLOCK_RAW_URING; engine <= BLOCK_RAW_THREADS; engine++) {
        for (int with_loop = 0; with_loop < 2; with_loop++) {
            Loop *loop = with_loop ? loop_new(NULL) : NULL;
            Block *b = open_with(engine, loop);

            assert_string_equal(block_raw_engine_name(b), engine == BLOCK_RAW_URING ? "io_uring" : "threads");
            if (loop)
                assert_true(loop_start(loop, NULL));
            fn(b, loop);
            close_block(b, loop);
            loop_free(loop);
        }
    }
}

static void read_file(uint64_t offset, void *buf, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, buf, n, offset), n);
    close(fd);
}

static void check_transfers(Block *b, Loop *loop)
{
    static char out[70000], in[70000];

    (void)loop;
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = i * 7 + 1;
    assert_int_equal(b->size, SIZE);
    assert_string_equal(block_raw_path(b), path);
    assert_true(block_write(b, 1234, out, sizeof(out), NULL));
    read_file(1234, in, sizeof(in));
    assert_memory_equal(in, out, sizeof(out));
    memset(in, 0, sizeof(in));
    assert_true(block_read(b, 1234, in, sizeof(in), NULL));
    assert_memory_equal(in, out, sizeof(out));
    for (int unmap = 0; unmap < 2; unmap++) {
        assert_true(block_write(b, 1234, out, sizeof(out), NULL));
        assert_true(block_zero(b, 1300, 60000, unmap, NULL));
        memset(in + 66, 'x', 60000);
        assert_true(block_read(b, 1234, in, sizeof(in), NULL));
        for (size_t i = 0; i < sizeof(in); i++)
            assert_int_equal(in[i], i >= 66 && i < 60066 ? 0 : out[i]);
    }
    assert_true(block_flush(b, NULL));
    assert_false(block_read(b, SIZE - 1, in, 2, NULL));
}

static void test_transfers(void **state)
{
    (void)state;
    in_each_way(check_transfers);
}

/* Many at once, more than the kernel is given; each is done exactly once, and on the loop where there is one.
 */
#define MANY 1000

struct many {
    Loop *loop;
    unsigned done; /* atomic */
    struct block_request r[MANY];
    uint32_t data[MANY];
};

static void one_done(struct block_request *r)
{
    struct many *m = r->opaque;

    if (m->loop)
        loop_assert_locked(m->loop);
    assert_int_equal(r->error, 0);
    __atomic_add_fetch(&m->done, 1, __ATOMIC_RELEASE);
}

static void submit_many(Block *b, struct many *m, enum block_op op)
{
    __atomic_store_n(&m->done, 0, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < MANY; i++) {
        m->r[i] = (struct block_request){
            .op = op, .offset = 512 * i, .size = 4, .data = &m->data[i], .done = one_done, .opaque = m};
        block_submit(b, &m->r[i]);
    }
}

static void wait_many(struct many *m)
{
    while (__atomic_load_n(&m->done, __ATOMIC_ACQUIRE) < MANY)
        task_sleep_until(clock_now() + NS_PER_MS);
}

static void check_many(Block *b, Loop *loop)
{
    struct many *m = calloc(1, sizeof(*m));

    m->loop = loop;
    for (unsigned i = 0; i < MANY; i++)
        m->data[i] = i + 1;
    submit_many(b, m, BLOCK_WRITE);
    wait_many(m);
    memset(m->data, 0, sizeof(m->data));
    submit_many(b, m, BLOCK_READ);
    wait_many(m);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(m->data[i], i + 1);
    submit_many(b, m, BLOCK_FLUSH);
    if (loop)
        loop_lock(loop);
    block_drain(b); /* completes here what has not yet completed elsewhere */
    if (loop)
        loop_unlock(loop);
    assert_int_equal(__atomic_load_n(&m->done, __ATOMIC_ACQUIRE), MANY);
    free(m);
}

static void test_many(void **state)
{
    (void)state;
    in_each_way(check_many);
}

/* While the loop is parked nothing completes. */
static void check_parked(Block *b, Loop *loop)
{
    struct many *m;

    if (!loop)
        return;
    m = calloc(1, sizeof(*m));
    m->loop = loop;
    loop_park(loop);
    submit_many(b, m, BLOCK_READ);
    task_sleep_until(clock_now() + 20 * NS_PER_MS);
    assert_int_equal(__atomic_load_n(&m->done, __ATOMIC_ACQUIRE), 0);
    loop_unpark(loop);
    wait_many(m);
    free(m);
}

static void test_parked(void **state)
{
    (void)state;
    in_each_way(check_parked);
}

/* A file that became shorter: an error, not bytes from nowhere. */
static void check_shorter(Block *b, Loop *loop)
{
    char buf[1024];
    Error *err = NULL;

    (void)loop;
    assert_int_equal(truncate(path, SIZE / 2), 0);
    assert_false(block_read(b, SIZE / 2 - 512, buf, 1024, &err));
    assert_int_equal(error_get_errno(err), EIO);
    error_free(err);
    assert_int_equal(truncate(path, SIZE), 0);
}

static void test_shorter(void **state)
{
    (void)state;
    in_each_way(check_shorter);
}

/* The memory file system has holes and no unwritten ranges: zeroes are written then. */
static void test_zero_fallback(void **state)
{
    (void)state;
    unlink(path);
    make_image("/dev/shm", SIZE);
    in_each_way(check_transfers);
}

static void test_steps(void **state)
{
    struct raw raw = {.fd = -1};
    struct block_request r = {.op = BLOCK_WRITE, .offset = 1000, .size = 500, .data = (void *)0x10000};
    struct raw_step s;
    int error = -1;

    (void)state;
    assert_false(raw_step_done(&raw, &r, 200, &error)); /* short: goes on behind it */
    raw_next_step(&raw, &r, &s);
    assert_int_equal(s.call, RAW_WRITE);
    assert_int_equal(s.offset, 1200);
    assert_int_equal(s.size, 300);
    assert_ptr_equal(s.data, (void *)(0x10000 + 200));
    assert_false(raw_step_done(&raw, &r, -EINTR, &error));
    assert_false(raw_step_done(&raw, &r, 299, &error));
    assert_true(raw_step_done(&raw, &r, 1, &error));
    assert_int_equal(error, 0);
    r.progress = 0;
    assert_true(raw_step_done(&raw, &r, 0, &error));
    assert_int_equal(error, EIO);
    assert_true(raw_step_done(&raw, &r, -ENOSPC, &error));
    assert_int_equal(error, ENOSPC);
}

static void test_zero_steps(void **state)
{
    struct raw raw = {.fd = -1};
    struct block_request r = {.op = BLOCK_ZERO, .unmap = true, .offset = 512, .size = 1 << 20};
    struct raw_step s;
    int error = -1;

    (void)state;
    raw_next_step(&raw, &r, &s);
    assert_int_equal(s.call, RAW_FALLOCATE);
    assert_int_equal(s.mode, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE);
    assert_false(raw_step_done(&raw, &r, -EOPNOTSUPP, &error));
    raw_next_step(&raw, &r, &s);
    assert_int_equal(s.mode, FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE);
    assert_false(raw_step_done(&raw, &r, -EINVAL, &error)); /* this one is not aligned for the device */
    raw_next_step(&raw, &r, &s);
    assert_int_equal(s.call, RAW_WRITE);
    assert_int_equal(s.offset, 512);
    assert_false(raw_step_done(&raw, &r, s.size, &error));
    while (r.progress < r.size) {
        raw_next_step(&raw, &r, &s);
        assert_int_equal(s.offset, 512 + r.progress);
        assert_true(s.size <= r.size - r.progress);
        if (raw_step_done(&raw, &r, s.size, &error))
            break;
    }
    assert_int_equal(error, 0);
    assert_int_equal(r.progress, r.size);
    assert_true(raw.cannot[RAW_ZERO_PUNCH]);
    assert_false(raw.cannot[RAW_ZERO_RANGE]);
    r = (struct block_request){.op = BLOCK_ZERO, .stage = RAW_ZERO_RANGE, .size = 512};
    assert_true(raw_step_done(&raw, &r, -ENOSPC, &error));
    assert_int_equal(error, ENOSPC);
}

/* --- groups --- */

static char group_data[16][4096];

static struct block_request *put(struct raw_list *l, unsigned i, enum block_op op, uint64_t offset,
                                 uint64_t size)
{
    static struct block_request r[16];

    r[i] = (struct block_request){.op = op, .offset = offset, .size = size, .data = group_data[i]};
    raw_list_put(l, &r[i]);
    return &r[i];
}

static void test_groups(void **state)
{
    struct block_request *first, *other;
    struct raw_group *g;
    struct raw_list l;

    (void)state;
    raw_list_init(&l);
    assert_null(raw_group_take(&l));
    first = put(&l, 0, BLOCK_WRITE, 512, 512);
    assert_null(raw_group_take(&l)); /* alone */
    put(&l, 1, BLOCK_WRITE, 1024, 4096);
    put(&l, 2, BLOCK_WRITE, 5120, 512);
    other = put(&l, 3, BLOCK_READ, 5632, 512); /* another kind */
    put(&l, 4, BLOCK_READ, 6145, 512);         /* a gap */
    g = raw_group_take(&l);
    assert_non_null(g);
    assert_int_equal(g->op, BLOCK_WRITE);
    assert_int_equal(g->count, 3);
    assert_int_equal(g->offset, 512);
    assert_int_equal(g->size, 5120);
    assert_ptr_equal(g->requests[0], first);
    assert_ptr_equal(g->iov[2].iov_base, group_data[2]);
    assert_int_equal(g->iov[1].iov_len, 4096);
    assert_ptr_equal(l.first, other);
    assert_null(raw_group_take(&l));
    raw_list_init(&l);
    raw_group_split(g, &l);
    assert_ptr_equal(l.first, first);
    assert_null(raw_group_take(&l)); /* not again */
    raw_list_init(&l);
    put(&l, 0, BLOCK_ZERO, 0, 512);
    put(&l, 1, BLOCK_ZERO, 512, 512);
    assert_null(raw_group_take(&l));
    raw_list_init(&l);
    put(&l, 0, BLOCK_WRITE, 0, RAW_GROUP_SIZE);
    put(&l, 1, BLOCK_WRITE, RAW_GROUP_SIZE, 1);
    assert_null(raw_group_take(&l)); /* too large */
}

/* Requests from the loop's thread are grouped: some beyond the end of a file that became shorter fail, the others do
 * not. */
struct grouped {
    Loop *loop;
    Block *block;
    struct block_request r[64];
    int errors[64];
    unsigned done; /* atomic */
    char data[64][512];
};

static void grouped_done(struct block_request *r)
{
    struct grouped *d = r->opaque;

    d->errors[r - d->r] = r->error;
    __atomic_add_fetch(&d->done, 1, __ATOMIC_RELEASE);
}

static void submit_grouped(void *opaque)
{
    struct grouped *d = opaque;

    for (unsigned i = 0; i < 64; i++)
        block_submit(d->block, &d->r[i]);
}

static void run_grouped(struct grouped *d, enum block_op op)
{
    __atomic_store_n(&d->done, 0, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 64; i++)
        d->r[i] = (struct block_request){
            .op = op, .offset = 512 * i, .size = 512, .data = d->data[i], .done = grouped_done, .opaque = d};
    loop_post(d->loop, submit_grouped, d);
    while (__atomic_load_n(&d->done, __ATOMIC_ACQUIRE) < 64)
        task_sleep_until(clock_now() + NS_PER_MS);
}

static void check_grouped(Block *b, Loop *loop)
{
    struct grouped *d;

    if (!loop)
        return;
    d = calloc(1, sizeof(*d));
    d->loop = loop;
    d->block = b;
    for (unsigned i = 0; i < 64; i++)
        memset(d->data[i], 1 + i, 512);
    run_grouped(d, BLOCK_WRITE);
    memset(d->data, 0, sizeof(d->data));
    run_grouped(d, BLOCK_READ);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(d->errors[i], 0);
        assert_int_equal(d->data[i][0], 1 + i);
        assert_int_equal(d->data[i][511], 1 + i);
    }
    assert_int_equal(truncate(path, 40 * 512), 0);
    memset(d->data, 0, sizeof(d->data));
    run_grouped(d, BLOCK_READ);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(d->errors[i], i < 40 ? 0 : EIO);
        assert_int_equal(d->data[i][511], i < 40 ? 1 + i : 0);
    }
    assert_int_equal(truncate(path, SIZE), 0);
    free(d);
}

static void test_grouped(void **state)
{
    (void)state;
    in_each_way(check_grouped);
}

static void test_create(void **state)
{
    struct stat st;
    Error *err = NULL;

    (void)state;
    assert_false(block_raw_create(path, SIZE, &err)); /* it exists */
    assert_int_equal(error_get_errno(err), EEXIST);
    error_free(err);
    unlink(path);
    assert_true(block_raw_create(path, SIZE, NULL));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_true(st.st_blocks * 512ll >= SIZE);
    assert_int_equal(st.st_mode & 077, 0);
    unlink(path);
    err = NULL;
    assert_false(block_raw_create(path, UINT64_C(1) << 60, &err)); /* more than there is */
    assert_non_null(strstr(error_get_pretty(err), path));
    error_free(err);
    assert_int_equal(access(path, F_OK), -1);
    assert_false(block_raw_create(path, UINT64_MAX, NULL));
    assert_false(block_raw_create("/nonexistent/image", SIZE, NULL));
}

/* --- where io_uring is forbidden --- */

static void forbid_io_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(10);
}

static int in_sandbox(void)
{
    struct block_raw_options o = {.id = "root", .path = path};
    Error *err = NULL;
    Block *b = block_raw_open(&o, NULL);
    char c = 'x';

    if (!b || strcmp(block_raw_engine_name(b), "threads") != 0 || !block_write(b, 0, &c, 1, NULL))
        return 1;
    block_close(b);
    o.engine = BLOCK_RAW_URING;
    if (block_raw_open(&o, &err) || !strstr(error_get_pretty(err), "io_uring"))
        return 2;
    error_free(err);
    return 0;
}

static void test_sandbox(void **state)
{
    static const int errors[] = {EPERM, ENOSYS};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        pid_t pid = fork();
        int status;

        if (pid == 0) {
            forbid_io_uring(errors[i]);
            _exit(in_sandbox());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

static void test_environment(void **state)
{
    static const char *const wishes[][2] = {{"threads", "threads"}, {"uring", "io_uring"}};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        Block *b;

        setenv("PERDURE_DISK_ENGINE", wishes[i][0], 1);
        b = open_with(BLOCK_RAW_AUTO, NULL);
        assert_string_equal(block_raw_engine_name(b), wishes[i][1]);
        block_close(b);
    }
    unsetenv("PERDURE_DISK_ENGINE");
}

#define WITH_IMAGE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_IMAGE(test_transfers),        WITH_IMAGE(test_many),          WITH_IMAGE(test_parked),
        WITH_IMAGE(test_shorter),          WITH_IMAGE(test_zero_fallback), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_zero_steps), cmocka_unit_test(test_groups),  WITH_IMAGE(test_grouped),
        WITH_IMAGE(test_create),           WITH_IMAGE(test_sandbox),       WITH_IMAGE(test_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

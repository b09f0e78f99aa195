/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulator's own test: does its world behave as a world would? Each test runs in a process of its own.
 */
#include "sim_disk.h"
#include "sim_link.h"
#include "sim_runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(x)                                                                                             \
    do {                                                                                                     \
        if (!(x))                                                                                            \
            sim_fail("%s:%d: %s", __FILE__, __LINE__, #x);                                                   \
    } while (0)

static SimHost *a, *b;
static struct transport *ta, *tb;
static uint64_t served, received;
static int last_errno;
static bool killed;

/* Answers each byte of 1000 with itself. */
static void serve(void *arg)
{
    struct transport *t = arg;
    uint8_t buf[1000];
    Channel *ch = t->accept(t, NULL);

    CHECK(ch);
    while (channel_read_full(ch, buf, sizeof(buf), NULL) && channel_write(ch, buf, sizeof(buf), NULL))
        served++;
    channel_close(ch);
}

static void ask(void *arg)
{
    struct transport *t = arg;
    uint8_t buf[1000], answer[1000];
    Error *err = NULL;
    Channel *ch = t->connect(t, "sim:1", clock_now() + NS_PER_S, &err);
    bool ok = ch;

    for (int i = 0; ok && i < 100; i++) {
        memset(buf, i, sizeof(buf));
        channel_set_deadline(ch, clock_now() + NS_PER_S);
        ok = channel_write(ch, buf, sizeof(buf), &err) && channel_read_full(ch, answer, sizeof(answer), &err);
        received += ok;
        CHECK(!ok || !memcmp(buf, answer, sizeof(buf)));
        sim_trace("answer %d: %d", i, ok);
    }
    last_errno = ok ? 0 : error_get_errno(err);
    error_free(err);
    channel_close(ch);
}

static void crash(SimHost *h)
{
    killed = true;
    sim_link_host_died(h, DEATH_SILENT);
    sim_host_kill(h);
}

static void begin(Task **asking, Task **serving)
{
    a = sim_host_new("A", 0);
    b = sim_host_new("B", 1);
    ta = sim_transport_new(a);
    tb = sim_transport_new(b);
    *serving = sim_spawn(b, "serve", serve, tb);
    *asking = sim_spawn(a, "ask", ask, ta);
}

static void end(Task *asking, Task *serving)
{
    task_join(asking);
    if (sim_host_state(b) != SIM_HOST_DEAD)
        task_join(serving);
    sim_transport_free(ta);
    sim_transport_free(tb);
}

static void test_ping(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    end(asking, serving);
    CHECK(served == 100 && received == 100);
}

static void test_crash_at_byte(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    sim_link_crash_after(b, 10500, crash);
    end(asking, serving);
    CHECK(killed && served == 10 && received <= 10 && last_errno == ETIMEDOUT);
}

static void test_process_death(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    while (served < 5)
        sim_sleep(NS_PER_US);
    sim_link_host_died(b, DEATH_PROCESS);
    sim_host_kill(b);
    end(asking, serving);
    CHECK(received >= 5 && last_errno && last_errno != ETIMEDOUT);
}

static void test_freeze(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    while (served < 5)
        sim_sleep(NS_PER_US);
    sim_host_freeze(b);
    sim_sleep(NS_PER_S / 2);
    CHECK(served <= 6);
    sim_host_thaw(b);
    end(asking, serving);
    CHECK(received == 100);
}

static void test_cut_and_heal(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    while (served < 5)
        sim_sleep(NS_PER_US);
    sim_link_cut(1, 0);
    sim_sleep(NS_PER_S / 2);
    CHECK(served == 6 || served == 5);
    sim_link_heal(1, 0);
    end(asking, serving);
    CHECK(received == 100);
}

static void test_cut_for_ever(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    while (served < 5)
        sim_sleep(NS_PER_US);
    sim_link_cut(0, 1);
    sim_link_cut(1, 0);
    task_join(asking);
    CHECK(last_errno == ETIMEDOUT && received <= 6);
    sim_link_heal(0, 1);
    sim_link_heal(1, 0);
    task_join(serving);
}

static void test_reset(void)
{
    Task *asking, *serving;

    begin(&asking, &serving);
    while (served < 5)
        sim_sleep(NS_PER_US);
    sim_link_reset(0, 1);
    end(asking, serving);
    CHECK(received < 100 && (last_errno == ECONNRESET || last_errno == EPIPE));
}

struct pair_of_locks {
    struct task_mutex lock;
    struct task_cond cond;
    int value;
};

static void add(void *arg)
{
    struct pair_of_locks *p = arg;

    for (int i = 0; i < 50; i++) {
        task_lock(&p->lock);
        p->value++;
        task_broadcast(&p->cond);
        task_unlock(&p->lock);
    }
}

static void test_locks(void)
{
    struct pair_of_locks p = {.value = 0};
    Task *t[3];
    int64_t before = clock_now();

    task_mutex_init(&p.lock);
    task_cond_init(&p.cond);
    for (int i = 0; i < 3; i++)
        t[i] = task_start("add", add, &p, NULL);
    task_lock(&p.lock);
    while (p.value < 150)
        task_wait(&p.cond, &p.lock);
    while (task_wait_until(&p.cond, &p.lock, before + 5 * NS_PER_S))
        continue;
    task_unlock(&p.lock);
    CHECK(clock_now() >= before + 5 * NS_PER_S && clock_now() < before + 6 * NS_PER_S);
    task_sleep_until(before + 7 * NS_PER_S);
    CHECK(clock_now() >= before + 7 * NS_PER_S);
    for (int i = 0; i < 3; i++)
        task_join(t[i]);
    task_mutex_destroy(&p.lock);
    task_cond_destroy(&p.cond);
}

/* --- disks --- */

#define DISK_SECTORS 64u

static struct sim_medium *medium;
static unsigned told;

static void write_value(Block *disk, uint64_t sector, uint8_t value)
{
    uint8_t buf[SIM_SECTOR];

    memset(buf, value, sizeof(buf));
    CHECK(block_write(disk, sector * SIM_SECTOR, buf, sizeof(buf), NULL));
}

static unsigned count_of(const uint8_t *content, uint8_t value)
{
    unsigned n = 0;

    for (unsigned i = 0; i < DISK_SECTORS; i++)
        n += content[i * SIM_SECTOR] == value;
    return n;
}

static void write_all(Block *disk, uint8_t value)
{
    for (unsigned i = 0; i < DISK_SECTORS; i++)
        write_value(disk, i, value);
}

/* One node writes; what it flushed is there after a power cut, of the rest some, sector by sector. */
static void write_for_ever(void *arg)
{
    Block *disk = sim_disk_open("root", medium);

    (void)arg;
    write_all(disk, 1);
    CHECK(block_flush(disk, NULL));
    write_all(disk, 2);
    told++;
    for (;;)
        write_all(disk, 3);
}

static void test_power_cut(void)
{
    struct sim_rng rng = sim_rng_make(1, 1);
    unsigned twos;

    a = sim_host_new("A", 0);
    medium = medium_new(DISK_SECTORS * SIM_SECTOR);
    sim_spawn(a, "writer", write_for_ever, NULL);
    while (!told)
        sim_sleep(NS_PER_MS);
    twos = count_of(medium->view, 2);
    CHECK(count_of(medium->durable, 1) == DISK_SECTORS && !count_of(medium->view, 1));
    sim_host_kill(a);
    medium_power_cut(medium, &rng);
    sim_trace("of %u unflushed %u are left, %u are as before", twos, count_of(medium->view, 2),
              count_of(medium->view, 1));
    CHECK(medium_is_durable(medium) && count_of(medium->view, 1) && count_of(medium->view, 2));
    CHECK(!medium->open);
}

static void test_process_death_keeps_writes(void)
{
    struct sim_rng rng = sim_rng_make(1, 1);

    a = sim_host_new("A", 0);
    medium = medium_new(DISK_SECTORS * SIM_SECTOR);
    sim_spawn(a, "writer", write_for_ever, NULL);
    while (!told)
        sim_sleep(NS_PER_MS);
    sim_host_kill(a);
    medium_process_death(medium, &rng);
    CHECK(!count_of(medium->view, 1) && count_of(medium->durable, 1) == DISK_SECTORS);
    medium_flush(medium, medium_mark(medium));
    CHECK(medium_is_durable(medium));
}

static void on_request(struct block_request *r)
{
    told += r->error == 0;
}

/* Requests in flight complete in any order; a flush covers what had completed before it was submitted. */
static void test_flush(void)
{
    struct block_request flush = {.op = BLOCK_FLUSH, .done = on_request};
    struct block_request zero = {.op = BLOCK_ZERO, .size = 2 * SIM_SECTOR, .done = on_request};
    Block *disk;

    medium = medium_new(DISK_SECTORS * SIM_SECTOR);
    disk = sim_disk_open("root", medium);
    write_value(disk, 0, 7);
    write_value(disk, 1, 7);
    block_submit(disk, &flush);
    block_submit(disk, &zero);
    block_drain(disk);
    CHECK(told == 2 && count_of(medium->durable, 7) == 2 && count_of(medium->view, 7) == 0);
    CHECK(block_flush(disk, NULL) && count_of(medium->durable, 7) == 0);
    medium->fail_in[BLOCK_WRITE] = 2;
    write_value(disk, 5, 9);
    CHECK(!block_write(disk, 0, medium->view + 5 * SIM_SECTOR, SIM_SECTOR, NULL) && sim_disk_has_failed());
    block_close(disk);
}

static const struct test {
    const char *name;
    void (*fn)(void);
} tests[] = {
    {"ping", test_ping},
    {"crash at a byte", test_crash_at_byte},
    {"death of a process", test_process_death},
    {"freeze", test_freeze},
    {"cut and heal", test_cut_and_heal},
    {"cut for ever", test_cut_for_ever},
    {"reset", test_reset},
    {"locks and clock", test_locks},
    {"power cut", test_power_cut},
    {"a killed process and its disk", test_process_death_keeps_writes},
    {"flush and order", test_flush},
};

static void run_main(void *arg)
{
    const struct test *t = arg;

    t->fn();
    sim_stop();
}

/* The hash of the history, 0 after a failure; in a child, that what leaks there and what is set once may do
 * no harm. */
static uint64_t run(const struct test *t, uint64_t seed)
{
    uint64_t hash = 0;
    int fds[2], status;
    pid_t pid;

    fflush(stdout);
    if (pipe(fds))
        abort();
    pid = fork();
    if (pid == 0) {
        alarm(60);
        sim_set_title(t->name);
        sim_runtime_init(seed);
        sim_link_init(seed);
        sim_disk_init(seed);
        sim_spawn(sim_host_new("world", 3), "test", run_main, (void *)t);
        sim_run();
        hash = sim_trace_hash() ^ sim_switches();
        if (write(fds[1], &hash, sizeof(hash)) != sizeof(hash))
            _exit(1);
        _exit(0);
    }
    close(fds[1]);
    if (read(fds[0], &hash, sizeof(hash)) != sizeof(hash))
        hash = 0;
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (status)
        printf("FAILED: %s, seed %llu (status 0x%x)\n", t->name, (unsigned long long)seed, status);
    return status ? 0 : hash;
}

int main(void)
{
    int passed = 0, failed = 0;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        bool ok = true;

        for (uint64_t seed = 1; seed <= 10 && ok; seed++) {
            uint64_t first = run(&tests[i], seed), second = run(&tests[i], seed);

            ok = first && first == second;
            if (first && !ok)
                printf("FAILED: %s, seed %llu: the second run differs from the first\n", tests[i].name,
                       (unsigned long long)seed);
        }
        passed += ok;
        failed += !ok;
    }
    printf("sim-selftest: %d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}

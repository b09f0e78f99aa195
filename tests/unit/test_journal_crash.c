/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts of a backup: the journal and its writer on the simulator's fibers, two disks, a journal so small
 * that it goes round and round. After each operation the power could have gone: what may be left of the three
 * files is replayed, and then both disks must hold the same whole epoch, not older than what the writer had
 * called durable by then.
 *
 *     test_journal_crash [SEEDS [FIRST]]           a seed replays its failure
 *
 * Bugs planted in the journal and its writer (base/fault.h) must be found, or this test is worth nothing.
 */
#include "base/fault.h"
#include "block/journal_writer.h"
#include "../lib/disk_recorder.h"
#include "../sim/sim_runtime.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define DISKS        2
#define DISK_SIZE    16384u
#define EPOCHS_MAX   80
#define JOURNAL      DISKS /* its number among the files */
#define JOURNAL_SIZE JOURNAL_SIZE_MIN

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SEEDS 10 /* of a second each, or more */
#else
#define SEEDS 250
#endif

static uint64_t seeds = SEEDS, first_seed = 1;

struct content {
    uint8_t bytes[DISKS][DISK_SIZE];
    bool changed; /* the epoch has writes */
};

/* One seed's run, in a process of its own. */
struct scenario {
    uint64_t seed;
    struct sim_rng rng;
    DiskRecorder *recorder;
    JournalWriter *jw;
    struct content *epochs; /* what the disks hold after each */
    uint64_t last;
    uint64_t told;             /* the last one that was called durable, as the recorder knows */
    size_t begin, end, moment; /* begin: journal_create() had returned */
    bool quiet;
};

static void give_up(const struct scenario *s, const char *fmt, ...) PERDURE_PRINTF(2, 3)
    __attribute__((noreturn));
static void give_up(const struct scenario *s, const char *fmt, ...)
{
    va_list ap;

    if (!s->quiet) {
        printf("seed %llu, %s: ", (unsigned long long)s->seed,
               disk_recorder_describe(s->recorder, s->moment));
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
        printf("\n");
        fflush(stdout);
    }
    _exit(1);
}

/* --- the run --- */

static void add_data(struct scenario *s, struct epoch_writes *w, struct content *now, uint32_t disk,
                     uint64_t offset, uint64_t size)
{
    struct disk_write *d = disk_write_new(DISK_WRITE_DATA, disk, offset, size, size);

    for (uint64_t i = 0; i < size; i++)
        d->data[i] = (uint8_t)(w->epoch + sim_rng_below(&s->rng, 2) * 128);
    memcpy(now->bytes[disk] + offset, d->data, size);
    epoch_writes_add(w, d);
}

static void add_verify(struct epoch_writes *w, const struct content *now, uint32_t disk)
{
    struct disk_write *d = disk_write_new(DISK_WRITE_VERIFY, disk, 0, DISK_SIZE, DISK_HASH_SIZE);

    gnutls_hash_fast(GNUTLS_DIG_SHA256, now->bytes[disk], DISK_SIZE, d->data);
    epoch_writes_add(w, d);
}

static void add_write(struct scenario *s, struct epoch_writes *w, struct content *now)
{
    uint32_t disk = sim_rng_below(&s->rng, DISKS);
    uint64_t offset = sim_rng_below(&s->rng, DISK_SIZE);
    uint64_t size = 1 + sim_rng_below(&s->rng, sim_rng_one_in(&s->rng, 8) ? 8192 : 1500);

    if (size > DISK_SIZE - offset)
        size = DISK_SIZE - offset;
    if (sim_rng_one_in(&s->rng, 12)) {
        add_verify(w, now, disk);
    } else if (sim_rng_one_in(&s->rng, 6)) {
        memset(now->bytes[disk] + offset, 0, size);
        epoch_writes_add(w, disk_write_new(sim_rng_one_in(&s->rng, 2) ? DISK_WRITE_ZERO : DISK_WRITE_UNMAP,
                                           disk, offset, size, 0));
    } else {
        add_data(s, w, now, disk, offset, size);
    }
}

/* Mostly on both disks. */
static struct epoch_writes *make_epoch(struct scenario *s, uint64_t number)
{
    struct epoch_writes *w = epoch_writes_new();
    struct content *now = &s->epochs[number];

    *now = s->epochs[number - 1];
    w->epoch = number;
    for (uint64_t n = sim_rng_below(&s->rng, 5); n; n--)
        add_write(s, w, now);
    now->changed = w->count > 0;
    return w;
}

/* What is called durable must survive everything that comes now. */
static void tell(void *opaque)
{
    struct scenario *s = opaque;
    uint64_t durable = s->jw ? journal_writer_durable_epoch(s->jw) : 0;

    if (durable <= s->told)
        return;
    s->told = durable;
    disk_recorder_mark(s->recorder, durable);
}

/* A disk that takes its time: epochs gather meanwhile. */
struct slow {
    Block block;
    struct scenario *s;
};

static void slow_submit(Block *b, struct block_request *r)
{
    struct scenario *s = ((struct slow *)b)->s;

    if (sim_rng_one_in(&s->rng, 4))
        task_sleep_until(clock_now() + sim_rng_range(&s->rng, 0, NS_PER_MS));
    tell(s);
    block_pass(b, r, NULL);
}

static void slow_close(Block *b)
{
    free(b);
}

static const struct block_ops slow_ops = {.name = "slow", .submit = slow_submit, .close = slow_close};

static Block *disk(struct scenario *s, const char *id, uint64_t size)
{
    struct slow *d = calloc(1, sizeof(*d));

    block_init_filter(&d->block, &slow_ops,
                      disk_recorder_add(s->recorder, &memory_block_new(id, size)->block));
    d->s = s;
    return &d->block;
}

static void put_epochs(struct scenario *s, Error **errp)
{
    s->last = 20 + sim_rng_below(&s->rng, EPOCHS_MAX - 20);
    for (uint64_t i = 1; i <= s->last; i++) {
        if (!journal_writer_put(s->jw, make_epoch(s, i), errp))
            return;
        if (sim_rng_one_in(&s->rng, 3))
            task_sleep_until(clock_now() + sim_rng_range(&s->rng, 0, 10 * NS_PER_MS));
        if (sim_rng_one_in(&s->rng, 15) && !journal_writer_drain(s->jw, errp))
            return;
    }
    if (journal_writer_drain(s->jw, errp))
        tell(s);
}

static void check_contents(const struct scenario *s, int number, const uint8_t *bytes, uint64_t epoch);

/* Without any cut. */
static void check_image(struct scenario *s, int number, Block *image)
{
    uint8_t bytes[DISK_SIZE];

    block_read(image, 0, bytes, DISK_SIZE, NULL);
    check_contents(s, number, bytes, s->last);
}

static void run(void *arg)
{
    static const struct journal_identity identity = {
        .pair = "pair", .generation = 1, .disk_count = DISKS, .disks = {{"a", DISK_SIZE}, {"b", DISK_SIZE}}};
    struct scenario *s = arg;
    Block *images[DISKS];
    Error *err = NULL;
    Journal *j;

    s->recorder = disk_recorder_new();
    for (int i = 0; i < DISKS; i++)
        images[i] = disk(s, identity.disks[i].id, DISK_SIZE);
    j = journal_create(disk(s, "journal", JOURNAL_SIZE), &identity, &err);
    s->begin = disk_recorder_moments(s->recorder);
    s->jw = journal_writer_new(j, images, sim_rng_one_in(&s->rng, 2) ? 2000 : 100000, &err);
    put_epochs(s, &err);
    s->moment = s->end = disk_recorder_moments(s->recorder);
    if (err)
        give_up(s, "%s", error_get_pretty(err));
    journal_writer_free(s->jw);
    s->jw = NULL;
    for (int i = 0; i < DISKS; i++) {
        check_image(s, i, images[i]);
        block_close(images[i]);
    }
    sim_stop();
}

/* --- what is left, and what comes of it --- */

struct replay {
    Block *images[DISKS];
    uint64_t stop_after; /* epochs; the power goes again */
};

static bool apply(void *opaque, const struct epoch_writes *w, Error **errp)
{
    struct replay *r = opaque;

    if (!r->stop_after--) {
        error_setg(errp, "the power went again");
        return false;
    }
    return epoch_writes_apply(w, r->images, DISKS, true, errp);
}

/* The files stay when their blocks are closed. */
static void stay(Block *b)
{
    (void)b;
}

static const struct block_ops stay_ops = {.name = "file", .submit = memory_block_submit, .close = stay};

static bool replay(struct memory_block *const *files, uint64_t stop_after, uint64_t *ret_last, Error **errp)
{
    struct replay r = {.images = {&files[0]->block, &files[1]->block}, .stop_after = stop_after};
    Journal *j = journal_open(&files[JOURNAL]->block, errp);
    bool ok = j && journal_replay(j, apply, &r, ret_last, errp);

    journal_close(j);
    return ok;
}

/* Of what a replay wrote, which was not flushed, any sectors are lost. */
static void interrupted_replay(struct scenario *s, struct memory_block *const *files)
{
    uint8_t before[DISKS][DISK_SIZE];
    uint64_t last;

    for (int i = 0; i < DISKS; i++)
        memcpy(before[i], files[i]->bytes, DISK_SIZE);
    replay(files, sim_rng_below(&s->rng, 20), &last, NULL);
    for (int i = 0; i < DISKS; i++)
        for (size_t at = 0; at < DISK_SIZE; at += 512)
            if (sim_rng_one_in(&s->rng, 2))
                memcpy(files[i]->bytes + at, before[i] + at, 512);
}

static size_t first_difference(const uint8_t *a, const uint8_t *b)
{
    size_t at = memcmp(a, b, DISK_SIZE) ? 0 : DISK_SIZE;

    while (at < DISK_SIZE && a[at] == b[at])
        at++;
    return at;
}

static void check_contents(const struct scenario *s, int number, const uint8_t *bytes, uint64_t epoch)
{
    const uint8_t *wanted = s->epochs[epoch].bytes[number];
    size_t at = first_difference(bytes, wanted);

    if (at < DISK_SIZE)
        give_up(s, "disk %d does not hold epoch %llu at %zu: %02x instead of %02x", number,
                (unsigned long long)epoch, at, bytes[at], wanted[at]);
}

/* The newest epoch that had to survive: one without writes leaves no trace. */
static uint64_t oldest_allowed(const struct scenario *s)
{
    uint64_t epoch = disk_recorder_promised(s->recorder, s->moment);

    while (epoch && !s->epochs[epoch].changed)
        epoch--;
    return epoch;
}

static void check(struct scenario *s, struct memory_block *const *files)
{
    uint64_t last = UINT64_MAX, least = oldest_allowed(s);
    Error *err = NULL;

    if (!replay(files, UINT64_MAX, &last, &err))
        give_up(s, "%s", error_get_pretty(err));
    if (last < least || last > s->last)
        give_up(s, "epoch %llu came back, and %llu was durable", (unsigned long long)last,
                (unsigned long long)least);
    for (int i = 0; i < DISKS; i++)
        check_contents(s, i, files[i]->bytes, last);
}

static void cut_everywhere(struct scenario *s)
{
    for (s->moment = s->begin; s->moment <= s->end; s->moment++) {
        struct memory_block *files[DISKS + 1];

        for (int i = 0; i <= DISKS; i++)
            files[i] = disk_recorder_cut(s->recorder, i, s->moment, sim_rng_below(&s->rng, 8));
        files[JOURNAL]->block.ops = &stay_ops;
        if (sim_rng_one_in(&s->rng, 3))
            interrupted_replay(s, files);
        check(s, files);
        for (int i = 0; i <= DISKS; i++)
            memory_block_close(&files[i]->block);
    }
}

static void run_seed(uint64_t seed, const char *planted)
{
    struct scenario *s = calloc(1, sizeof(*s));

    s->seed = seed;
    s->quiet = planted;
    s->rng = sim_rng_make(seed, 10);
    s->epochs = calloc(EPOCHS_MAX + 1, sizeof(*s->epochs));
    if (planted)
        fault_arm(planted, 0);
    sim_runtime_init(seed);
    sim_spawn(sim_host_new("backup", 0), "scenario", run, s);
    sim_run();
    task_set_runtime(NULL);
    cut_everywhere(s);
    disk_recorder_free(s->recorder);
    free(s->epochs);
    free(s);
}

static bool seed_is_clean(uint64_t seed, const char *planted)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        if (planted && !freopen("/dev/null", "w", stdout))
            _exit(2);
        run_seed(seed, planted);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1); /* 1: give_up() */
    return status == 0;
}

static void test_every_cut_leaves_a_whole_epoch(void **state)
{
    (void)state;
    for (uint64_t i = first_seed; i < first_seed + seeds; i++)
        assert_true(seed_is_clean(i, NULL));
}

static void test_planted_bugs_are_found(void **state)
{
    static const char *const bugs[] = {"journal.no_sync_before_apply", "journal.accept_torn_epoch",
                                       "journal.reuse_before_release", "journal.no_sync_at_mark"};

    (void)state;
    for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
        uint64_t seed = 1;

        while (seed_is_clean(seed, bugs[i]))
            if (++seed > 100)
                fail_msg("%s: not found by 100 seeds", bugs[i]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_leaves_a_whole_epoch),
        cmocka_unit_test(test_planted_bugs_are_found),
    };

    if (argc > 1)
        seeds = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replicated disks without a machine: two processes over a socket pair, a few threads that write at random as
 * the guest, and nothing else of the project than the registries and the stream. Either process is killed at
 * any step, or neither; then the disks are compared with what the primary's were at the pause of the epoch
 * that counts: every byte, both disks of the same epoch.
 *
 * A round is: fork both, first sync over whatever the backup's disks hold, epochs, an end. The survivor's
 * disks are the next round's primary: so it fails over and back again and again. PERDURE_DISK_SEED and
 * PERDURE_DISK_ROUNDS choose others; the seed decides what is done and where it ends, the threads when.
 */
#include "base/fault.h"
#include "block/journal.h"
#include "block/replication_filter.h"
#include "memory_block.h"
#include "shared_store.h"
#include <perdure/checkpoint_device.h>
#include <perdure/replication.h>
#include <perdure/replication_feed.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#define DISKS         2
#define DISK_SIZE     (5 * REPLICATION_CHUNK_SIZE / 2)
#define JOURNAL_SIZE  (1u << 20)
#define QUEUE_LIMIT   (128u << 10)
#define EPOCHS_MAX    40
#define GUEST_THREADS 4
#define WRITE_MAX     20000

/* What goes over the socket. */
enum { START = 1, STARTED, FEED, QUESTION, REPLY, END, ACK, GOODBYE };

enum outcome { NO_OUTCOME, TOOK_OVER, REFUSED, STOPPED, WENT_ON, FAILED };

/* Shared by all processes. */
static struct world {
    uint8_t images[2][DISKS][DISK_SIZE]; /* of side 0 and 1 */
    uint8_t journal[JOURNAL_SIZE];
    uint8_t at_pause[EPOCHS_MAX + 2][DISKS][DISK_SIZE]; /* the primary's disks, by epoch */
    atomic_uint steps_left[2]; /* of primary and backup, to the one where it is killed */
    uint64_t acked;            /* the primary heard */
    uint64_t promised;         /* the backup said, or was about to say */
    bool started;              /* the backup's replication */
    enum outcome primary, backup;
    char why[512];
} * world;

struct plan {
    unsigned disks, primary_side, epochs, seed;
    unsigned steps[2]; /* 0: not killed */
    const char *fault;
};

static const struct plan *plan;
static int role; /* of this process: 0 primary, 1 backup */

/* Somewhere here a process may die. */
static void step(void)
{
    if (plan->steps[role] && atomic_fetch_sub(&world->steps_left[role], 1) == 1)
        kill(getpid(), SIGKILL);
}

/* --- what both sides have --- */

static ReplicationGroup *group;
static Block *top[DISKS];

static Block *open_journal(void *opaque, Error **errp)
{
    (void)opaque;
    (void)errp;
    return shared_store_open("journal", world->journal, JOURNAL_SIZE, plan->seed + 77);
}

static void open_disks(unsigned side)
{
    struct replication_group_options o = {
        .queue_limit = QUEUE_LIMIT, .backlog_limit = 64 << 10, .open_journal = open_journal};

    shared_store_init(step);
    group = replication_group_new(&o, NULL);
    replication_group_set_pair(group, "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", 1);
    replication_group_register();
    for (unsigned i = 0; i < plan->disks; i++)
        top[i] = replication_filter_new(
            group, shared_store_open(i ? "data" : "root", world->images[side][i], DISK_SIZE, plan->seed + i),
            NULL);
    if (!checkpoint_devices_setup_wait(NULL))
        abort();
}

static void close_disks(void)
{
    for (unsigned i = 0; i < plan->disks; i++) {
        block_drain(top[i]);
        block_close(top[i]);
    }
    checkpoint_devices_teardown(false);
    replication_group_free(group);
}

static void fail_with(enum outcome *where, const char *what, Error *err)
{
    *where = FAILED;
    snprintf(world->why, sizeof(world->why), "%s: %s", what, err ? error_get_pretty(err) : "?");
    error_free(err);
}

static void say(VMStream *out, uint16_t type, uint64_t id)
{
    perdure_stream_begin(out, type, id);
    perdure_stream_end(out);
    perdure_stream_flush(out, NULL);
}

/* --- the guest --- */

static atomic_bool guest_stopping;

static void write_something(Block *b, unsigned *seed)
{
    uint64_t size = (uint64_t)rand_r(seed) % (rand_r(seed) % 4 ? 2000 : WRITE_MAX) + 1;
    uint64_t offset = (uint64_t)rand_r(seed) % (DISK_SIZE - size);
    uint8_t bytes[WRITE_MAX];

    memset(bytes, rand_r(seed), size);
    if (rand_r(seed) % 8)
        block_write(b, offset, bytes, size, NULL);
    else
        block_zero(b, offset, size, rand_r(seed) % 2, NULL);
}

static void *guest_thread(void *arg)
{
    unsigned seed = plan->seed * 31 + (unsigned)(uintptr_t)arg;

    while (!atomic_load(&guest_stopping)) {
        Block *b = top[(unsigned)rand_r(&seed) % plan->disks];

        if (rand_r(&seed) % 16)
            write_something(b, &seed);
        else
            block_flush(b, NULL);
        if (rand_r(&seed) % 64 == 0)
            usleep(1000);
    }
    return NULL;
}

/* --- primary --- */

struct primary {
    VMStream *in, *out;
    unsigned seed;
    Error *err;
};

static bool expect(struct primary *p, uint16_t type, uint64_t *ret_id)
{
    uint16_t got;

    return perdure_stream_next(p->in, &got, ret_id) && got == type;
}

static bool hear(struct primary *p, uint16_t type, uint64_t id)
{
    uint64_t got;

    if (!expect(p, type, &got) || got != id)
        return false;
    perdure_stream_done(p->in);
    return true;
}

static bool send_messages(struct primary *p, uint64_t epoch)
{
    while (replication_feeds_next(epoch, p->out, FEED, epoch, 100000)) {
        step();
        if (!perdure_stream_flush(p->out, NULL))
            return false;
    }
    return !perdure_stream_error(p->out, NULL);
}

static bool sync_disks(struct primary *p)
{
    bool asked = true;
    uint64_t id;

    while (asked) {
        if (!send_messages(p, 1) || !replication_feeds_ask(p->out, QUESTION, 1, &asked, &p->err))
            return false;
        step();
        if (asked && (!perdure_stream_flush(p->out, NULL) || !expect(p, REPLY, &id) ||
                      !replication_feeds_answer(p->in, &p->err)))
            return false;
    }
    return true;
}

static bool pause_guest(struct primary *p, uint64_t epoch)
{
    bool ok;

    shared_store_close_gate();
    ok = checkpoint_devices_postsuspend(epoch, &p->err);
    memcpy(world->at_pause[epoch], world->images[plan->primary_side], sizeof(world->at_pause[epoch]));
    shared_store_open_gate();
    return ok;
}

/* The epoch may be sent while it runs, and its end is sent while the next one runs. */
static bool run_epoch(struct primary *p, uint64_t epoch)
{
    for (int i = rand_r(&p->seed) % 3; i; i--) {
        usleep((unsigned)rand_r(&p->seed) % 1500);
        if (!send_messages(p, epoch))
            return false;
    }
    if (rand_r(&p->seed) % 3 == 0)
        replication_group_verify(group, 3 * REPLICATION_CHUNK_SIZE);
    step();
    if (!pause_guest(p, epoch))
        return false;
    usleep((unsigned)rand_r(&p->seed) % 1000);
    if (!send_messages(p, epoch))
        return false;
    say(p->out, END, epoch);
    step();
    if (!hear(p, ACK, epoch) || !replication_get_error_all(&p->err))
        return false;
    world->acked = epoch;
    step();
    return true;
}

static bool start(struct primary *p)
{
    bool ok;

    say(p->out, START, 0);
    if (!hear(p, STARTED, 0))
        return false;
    shared_store_close_gate();
    ok = replication_start_all(REPLICATION_MODE_PRIMARY, &p->err);
    shared_store_open_gate();
    return ok && sync_disks(p);
}

static bool protect(struct primary *p)
{
    if (!start(p))
        return false;
    for (uint64_t n = 1; n <= plan->epochs; n++) {
        if (!run_epoch(p, n))
            return false;
    }
    say(p->out, GOODBYE, 0);
    return true;
}

/* Protection is over; the guest runs on for a moment. */
static void primary_main(int fd)
{
    struct primary p = {.in = perdure_stream_open_fd(fd, "r", NULL),
                        .out = perdure_stream_open_fd(fd, "w", NULL),
                        .seed = plan->seed};
    pthread_t threads[GUEST_THREADS];
    Error *err = NULL;
    bool in_order;

    open_disks(plan->primary_side);
    for (uintptr_t i = 0; i < GUEST_THREADS; i++)
        pthread_create(&threads[i], NULL, guest_thread, (void *)i);
    usleep(1000);
    in_order = protect(&p);
    if (!replication_stop_all(!in_order, &err) && !p.err)
        p.err = err;
    shutdown(fd, SHUT_RDWR);
    usleep(2000);
    atomic_store(&guest_stopping, true);
    for (int i = 0; i < GUEST_THREADS; i++)
        pthread_join(threads[i], NULL);
    world->primary = in_order ? STOPPED : WENT_ON;
    if (p.err)
        fail_with(&world->primary, "primary", p.err);
    close_disks();
    perdure_stream_close(p.in);
    perdure_stream_close(p.out);
}

/* --- backup --- */

struct backup {
    VMStream *in, *out, *reply;
    Error *err;
    bool over; /* in order */
};

static bool hear_message(struct backup *b)
{
    bool ok = replication_feeds_receive(b->in, b->reply, REPLY, &b->err);

    if (ok)
        perdure_stream_append(b->out, b->reply);
    perdure_stream_rewind(b->reply);
    return ok && perdure_stream_flush(b->out, NULL);
}

static bool hear_end(struct backup *b, uint64_t epoch)
{
    perdure_stream_done(b->in);
    if (!replication_do_checkpoint_all(&b->err) || !replication_get_error_all(&b->err))
        return false;
    step();
    world->promised = epoch;
    say(b->out, ACK, epoch);
    return true;
}

static bool hear_record(struct backup *b, uint16_t type, uint64_t id)
{
    step();
    switch (type) {
    case START:
        perdure_stream_done(b->in);
        if (!replication_start_all(REPLICATION_MODE_SECONDARY, &b->err))
            return false;
        world->started = true;
        say(b->out, STARTED, 0);
        return true;
    case FEED:
    case QUESTION:
        return hear_message(b);
    case END:
        return hear_end(b, id);
    default:
        b->over = true;
        return false;
    }
}

/* Cut off in the middle of a message: the end of the connection, and no error. */
static bool link_is_down(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void backup_main(int fd)
{
    struct backup b = {.in = perdure_stream_open_fd(fd, "r", NULL),
                       .out = perdure_stream_open_fd(fd, "w", NULL),
                       .reply = perdure_stream_open_memory(0)};
    Error *err = NULL;
    uint16_t type;
    uint64_t id;

    open_disks(!plan->primary_side);
    while (perdure_stream_next(b.in, &type, &id) && hear_record(&b, type, id))
        ;
    if (b.err && link_is_down(fd)) {
        error_free(b.err);
        b.err = NULL;
    }
    if (!replication_stop_all(!b.over, &err))
        world->backup = REFUSED;
    else
        world->backup = b.over ? STOPPED : TOOK_OVER;
    error_free(err);
    if (b.err)
        fail_with(&world->backup, "backup", b.err);
    shutdown(fd, SHUT_RDWR);
    close_disks();
    perdure_stream_close(b.in);
    perdure_stream_close(b.out);
    perdure_stream_close(b.reply);
}

/* --- a round --- */

static pid_t begin_process(int which, const int fd[2])
{
    pid_t pid = fork();

    if (pid)
        return pid;
    role = which;
    signal(SIGPIPE, SIG_IGN);
    close(fd[!which]);
    if (plan->fault)
        fault_arm(plan->fault, 0);
    (which ? backup_main : primary_main)(fd[which]);
    exit(0); /* sanitizers look at what is left */
}

/* Was it killed, as planned? Anything else than that and a good end is a failure. */
static bool killed(pid_t pid, enum outcome *where)
{
    int status;

    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_with(where, "a process crashed", NULL);
    return false;
}

static bool complain(const char *what, uint64_t n)
{
    if (!world->why[0])
        snprintf(world->why, sizeof(world->why), "%s (%llu)", what, (unsigned long long)n);
    return false;
}

static bool disks_are_of(unsigned side, uint64_t epoch)
{
    return !memcmp(world->images[side], world->at_pause[epoch], plan->disks * DISK_SIZE);
}

/* The primary died. */
static bool check_takeover(unsigned side)
{
    if (world->backup == STOPPED) /* after its last word */
        return disks_are_of(side, plan->epochs) || complain("not the last epoch's disks", plan->epochs);
    if (!world->started)
        return world->backup == TOOK_OVER || complain("a stop without a start failed", 0);
    if (!world->promised)
        return world->backup == REFUSED || complain("took over from a half-synced disk", world->backup);
    if (world->backup != TOOK_OVER)
        return complain("did not take over", world->backup);
    if (world->promised < world->acked)
        return complain("an epoch was acknowledged that nobody promised", world->acked);
    return disks_are_of(side, world->promised) || complain("not the disks of the epoch", world->promised);
}

static bool replay_into(void *opaque, const struct epoch_writes *w, Error **errp)
{
    return epoch_writes_apply(w, opaque, plan->disks, true, errp);
}

static Block *plain_block(const char *id, uint8_t *bytes, uint64_t size)
{
    struct memory_block *m = memory_block_new(id, size);

    free(m->bytes);
    m->bytes = bytes;
    return &m->block;
}

static void close_plain(Block *b)
{
    ((struct memory_block *)b)->bytes = NULL;
    block_close(b);
}

/* The backup died: its journal makes whole epochs of its disks, not newer than what it had. */
static bool check_replay(unsigned side)
{
    uint8_t *copy = malloc(JOURNAL_SIZE);
    Block *images[DISKS];
    uint64_t last = 0;
    Error *err = NULL;
    Journal *j;
    bool ok;

    if (!world->promised) {
        free(copy);
        return true;
    }
    memcpy(copy, world->journal, JOURNAL_SIZE);
    for (unsigned i = 0; i < plan->disks; i++)
        images[i] = plain_block(i ? "data" : "root", world->images[side][i], DISK_SIZE);
    j = journal_open(plain_block("journal", copy, JOURNAL_SIZE), &err); /* takes copy */
    ok = j && journal_replay(j, replay_into, images, &last, &err);
    if (!ok)
        fail_with(&world->backup, "replay", err);
    journal_close(j);
    for (unsigned i = 0; i < plan->disks; i++)
        close_plain(images[i]);
    if (ok && last > world->promised + 1)
        return complain("the journal has an epoch that nobody heard of", last);
    return ok && (disks_are_of(side, last ? last : 1) || complain("replay gave no whole epoch", last));
}

static bool check_good_end(unsigned side)
{
    if (world->primary != STOPPED || world->backup != STOPPED)
        return complain("it did not end in order", world->backup);
    return disks_are_of(side, plan->epochs) || complain("not the last epoch's disks", plan->epochs);
}

/* false, and world->why, if what must hold did not. */
static bool run_round(const struct plan *p)
{
    unsigned side = !p->primary_side;
    bool primary_killed, backup_killed;
    pid_t primary, backup;
    int fd[2];

    plan = p;
    world->acked = world->promised = 0;
    world->started = false;
    world->primary = world->backup = NO_OUTCOME;
    world->why[0] = 0;
    for (int i = 0; i < 2; i++)
        atomic_store(&world->steps_left[i], p->steps[i]);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
        abort();
    backup = begin_process(1, fd);
    primary = begin_process(0, fd);
    close(fd[0]);
    close(fd[1]);
    primary_killed = killed(primary, &world->primary);
    backup_killed = killed(backup, &world->backup);
    if (world->primary == FAILED || world->backup == FAILED)
        return false;
    if (backup_killed)
        return check_replay(side);
    return primary_killed ? check_takeover(side) : check_good_end(side);
}

/* --- many --- */

/* 0 none, 1 the primary, 2 the backup is killed at some step. */
static void make_plan(struct plan *p, unsigned *seed)
{
    unsigned who = (unsigned)rand_r(seed) % 5;

    p->seed = (unsigned)rand_r(seed);
    p->epochs = (unsigned)rand_r(seed) % EPOCHS_MAX + 1;
    p->steps[0] = who == 1 || who == 2 ? (unsigned)rand_r(seed) % (rand_r(seed) % 3 ? 1000 : 60) + 1 : 0;
    p->steps[1] = who == 3 || who == 4 ? (unsigned)rand_r(seed) % (rand_r(seed) % 3 ? 700 : 60) + 1 : 0;
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *s = getenv(name);

    return s ? (unsigned)atoi(s) : otherwise;
}

/* How many rounds until something was wrong; 0: nothing was. */
static unsigned run_rounds(unsigned seed, unsigned rounds, unsigned disks, const char *fault)
{
    struct plan p = {.disks = disks, .fault = fault};
    unsigned first = seed, ends[6] = {0};

    for (unsigned i = 1; i <= rounds; i++) {
        make_plan(&p, &seed);
        if (!run_round(&p)) {
            fprintf(stderr, "seed %u, round %u (%u disks, kill %u/%u, %u epochs%s%s): %s\n", first, i, disks,
                    p.steps[0], p.steps[1], p.epochs, fault ? ", " : "", fault ? fault : "", world->why);
            return i;
        }
        ends[world->backup]++;
        /* Whoever has the newest disks is the next primary. */
        if (world->backup == TOOK_OVER && world->promised)
            p.primary_side = !p.primary_side;
    }
    fprintf(stderr,
            "seed %u, %u rounds, %u disks: %u takeovers, %u refused, %u in order, %u backups killed\n", first,
            rounds, disks, ends[TOOK_OVER], ends[REFUSED], ends[STOPPED], ends[NO_OUTCOME]);
    return 0;
}

static void test_two_disks(void **state)
{
    (void)state;
    assert_int_equal(run_rounds(from_environment("PERDURE_DISK_SEED", 1),
                                from_environment("PERDURE_DISK_ROUNDS", 30), 2, NULL),
                     0);
}

static void test_one_disk(void **state)
{
    (void)state;
    assert_int_equal(run_rounds(from_environment("PERDURE_DISK_SEED", 2),
                                from_environment("PERDURE_DISK_ROUNDS", 15), 1, NULL),
                     0);
}

/* Each of these must be found; how soon depends on who runs when. */
#define ENOUGH 5000

static void test_planted_sync_overtakes_write(void **state)
{
    (void)state;
    assert_int_not_equal(run_rounds(3, ENOUGH, 2, "disks.sync_overtakes_write"), 0);
}

static void test_planted_takeover_of_half_synced(void **state)
{
    (void)state;
    assert_int_not_equal(run_rounds(4, ENOUGH, 2, "disks.takeover_of_half_synced"), 0);
}

static void test_planted_write_after_barrier(void **state)
{
    (void)state;
    assert_int_not_equal(run_rounds(5, ENOUGH, 2, "disks.write_after_barrier_in_epoch"), 0);
}

static int make_world(void **state)
{
    unsigned seed = 42;

    (void)state;
    world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world == MAP_FAILED)
        return -1;
    for (size_t i = 0; i < sizeof(world->images); i++)
        ((uint8_t *)world->images)[i] = (uint8_t)rand_r(&seed);
    return 0;
}

static int free_world(void **state)
{
    (void)state;
    return munmap(world, sizeof(*world));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_world, free_world)
    const struct CMUnitTest tests[] = {
        TEST(test_two_disks),
        TEST(test_one_disk),
        TEST(test_planted_sync_overtakes_write),
        TEST(test_planted_takeover_of_half_synced),
        TEST(test_planted_write_after_barrier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of a raw node on io_uring. Submission by any thread under a lock; completions are reaped by one:
 * the loop's thread, which waits for the ring's descriptor, or a task of the node. At most DEPTH calls are
 * with the kernel, so its completion ring cannot overflow; what is above waits here. Requests that lie one
 * behind the other are one call (raw_group.h).
 */
#include "block/raw_group.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/task.h"

#define DEPTH 256u
/* A read of what is in memory is a copy, made by the call that submits it, with the loop's lock held: a pause waits for
 * it. So much of it in one call; the rest is read by a thread of the kernel. */
#define COPIED_MAX (2u << 20)

struct uring {
    struct raw *raw;
    struct io_uring ring; /* submission: lock held. Completion: the reaper */
    Task *reaper;         /* NULL: the loop reaps */
    struct loop_deferred turn;

    struct task_mutex lock; /* protects what follows */
    struct task_cond changed;
    struct raw_list waiting;
    unsigned running;  /* calls with the kernel */
    unsigned prepared; /* in the ring, not told to the kernel */
    uint32_t copied;   /* bytes that the kernel may read at once when it is told */
    unsigned busy;     /* requests submitted and not completed */
};

/* What a completion tells of: a request, a group (the lowest bit set), or nothing (the reaper's end). */
static uint64_t tag_group(struct raw_group *g)
{
    return (uintptr_t)g | 1;
}

static struct raw_group *tagged_group(uint64_t tag)
{
    return tag & 1 ? (struct raw_group *)(uintptr_t)(tag & ~UINT64_C(1)) : NULL;
}

/* --- submission; lock held --- */

static void limit_copies(struct uring *u, struct io_uring_sqe *sqe, uint64_t size)
{
    if (size > COPIED_MAX - u->copied)
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    else
        u->copied += size;
}

static void prepare(struct uring *u, struct block_request *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring); /* there is one: see DEPTH */
    struct raw_step s;
    int fd = u->raw->fd;

    raw_next_step(u->raw, r, &s);
    switch (s.call) {
    case RAW_READ:
        io_uring_prep_read(sqe, fd, s.data, s.size, s.offset);
        limit_copies(u, sqe, s.size);
        break;
    case RAW_WRITE:
        io_uring_prep_write(sqe, fd, s.data, s.size, s.offset);
        break;
    case RAW_FALLOCATE:
        io_uring_prep_fallocate(sqe, fd, s.mode, s.offset, s.size);
        break;
    case RAW_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data64(sqe, (uintptr_t)r);
    u->prepared++;
}

static void prepare_group(struct uring *u, struct raw_group *g)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (g->op == BLOCK_READ) {
        io_uring_prep_readv(sqe, u->raw->fd, g->iov, g->count, g->offset);
        limit_copies(u, sqe, g->size);
    } else {
        io_uring_prep_writev(sqe, u->raw->fd, g->iov, g->count, g->offset);
    }
    io_uring_sqe_set_data64(sqe, tag_group(g));
    u->prepared++;
}

static void prepare_waiting(struct uring *u)
{
    while (u->waiting.first && u->running < DEPTH) {
        struct raw_group *g = raw_group_take(&u->waiting);

        u->running++;
        if (g)
            prepare_group(u, g);
        else
            prepare(u, raw_list_take(&u->waiting));
    }
}

/* The kernel refuses for a moment when it has no memory, or is interrupted. */
static void tell_kernel(struct uring *u)
{
    while (u->prepared) {
        int n = io_uring_submit(&u->ring);

        if (n > 0)
            u->prepared -= n;
        else if (n != -EINTR)
            task_sleep_until(clock_now() + NS_PER_MS);
    }
    u->copied = 0;
}

static void start_waiting(struct uring *u)
{
    prepare_waiting(u);
    tell_kernel(u);
}

/* What a handler of the loop submits goes to the kernel in one call, after it. */
static void uring_submit(struct raw *raw, struct block_request *r)
{
    struct uring *u = raw->engine_state;
    bool later = raw->loop && loop_is_current(raw->loop);

    task_lock(&u->lock);
    u->busy++;
    raw_list_put(&u->waiting, r);
    if (!later)
        start_waiting(u);
    task_unlock(&u->lock);
    if (later)
        loop_defer(raw->loop, &u->turn);
}

static void submit_waiting(struct uring *u)
{
    task_lock(&u->lock);
    start_waiting(u);
    task_unlock(&u->lock);
}

/* --- completion --- */

/* One call has ended. True: r is over. */
static bool account(struct uring *u, struct block_request *r, int result, int *ret_error)
{
    bool over;

    task_lock(&u->lock);
    over = raw_step_done(u->raw, r, result, ret_error);
    if (over)
        u->running--;
    else
        prepare(u, r);
    start_waiting(u);
    task_unlock(&u->lock);
    return over;
}

/* The same for a group. False: it was split, and g is gone. */
static bool account_group(struct uring *u, struct raw_group *g, int result)
{
    bool whole = result >= 0 && (uint64_t)result == g->size;

    task_lock(&u->lock);
    u->running--;
    if (!whole)
        raw_group_split(g, &u->waiting);
    start_waiting(u);
    task_unlock(&u->lock);
    return whole;
}

static void complete(struct uring *u, struct block_request *r, int error)
{
    block_complete(r, error);
    task_lock(&u->lock);
    u->busy--;
    task_broadcast(&u->changed);
    task_unlock(&u->lock);
}

static void reap_group(struct uring *u, struct raw_group *g, int result)
{
    if (!account_group(u, g, result))
        return;
    for (unsigned i = 0; i < g->count; i++)
        complete(u, g->requests[i], 0);
    free(g);
}

/* False: it was the call that ends the reaper. */
static bool reap(struct uring *u, struct io_uring_cqe *cqe)
{
    uint64_t tag = io_uring_cqe_get_data64(cqe);
    struct raw_group *g = tagged_group(tag);
    struct block_request *r = g ? NULL : (struct block_request *)(uintptr_t)tag;
    int result = cqe->res, error;

    io_uring_cqe_seen(&u->ring, cqe);
    if (g)
        reap_group(u, g, result);
    else if (r && account(u, r, result, &error))
        complete(u, r, error);
    return tag;
}

static void reap_all(struct uring *u)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&u->ring, &cqe) == 0)
        reap(u, cqe);
}

/* Reads of what the kernel has in memory are done when it returns. */
static void take_turn(void *opaque)
{
    submit_waiting(opaque);
    reap_all(opaque);
}

static void ring_ready(void *opaque, uint32_t events)
{
    (void)events;
    reap_all(opaque);
}

static void reap_always(void *arg)
{
    struct uring *u = arg;
    struct io_uring_cqe *cqe;

    for (;;) {
        if (io_uring_wait_cqe(&u->ring, &cqe) == 0 && !reap(u, cqe))
            return;
    }
}

static unsigned count_busy(struct uring *u)
{
    unsigned n;

    task_lock(&u->lock);
    n = u->busy;
    task_unlock(&u->lock);
    return n;
}

static void uring_drain(struct raw *raw)
{
    struct uring *u = raw->engine_state;
    struct io_uring_cqe *cqe;

    submit_waiting(u);
    while (!u->reaper && count_busy(u)) {
        if (io_uring_wait_cqe(&u->ring, &cqe) == 0)
            reap(u, cqe);
    }
    task_lock(&u->lock);
    while (u->busy)
        task_wait(&u->changed, &u->lock);
    task_unlock(&u->lock);
}

/* --- life --- */

static void stop_reaper(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (!u->reaper)
        return;
    task_lock(&u->lock);
    sqe = io_uring_get_sqe(&u->ring);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, 0);
    u->prepared++;
    tell_kernel(u);
    task_unlock(&u->lock);
    task_join(u->reaper);
}

static void uring_close(struct raw *raw)
{
    struct uring *u = raw->engine_state;

    stop_reaper(u);
    if (raw->loop) {
        loop_undefer(raw->loop, &u->turn);
        loop_remove_fd(raw->loop, u->ring.ring_fd);
    }
    io_uring_queue_exit(&u->ring);
    task_cond_destroy(&u->changed);
    task_mutex_destroy(&u->lock);
    free(u);
    raw->engine_state = NULL;
}

/* Kernels before 5.6 have rings without these. */
static bool has_calls(struct io_uring *ring)
{
    static const int needed[] = {IORING_OP_READ,   IORING_OP_WRITE,     IORING_OP_READV,
                                 IORING_OP_WRITEV, IORING_OP_FALLOCATE, IORING_OP_FSYNC};
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool all = probe;

    for (unsigned i = 0; all && i < sizeof(needed) / sizeof(needed[0]); i++)
        all = io_uring_opcode_supported(probe, needed[i]);
    if (probe)
        io_uring_free_probe(probe);
    return all;
}

static int make_ring(struct io_uring *ring)
{
    /* Completions need not interrupt the thread that submitted: it comes by. (Kernels before 5.19 know no such flag.) */
    int error = -io_uring_queue_init(DEPTH, ring, IORING_SETUP_COOP_TASKRUN);

    if (error == EINVAL)
        error = -io_uring_queue_init(DEPTH, ring, 0);
    if (error || has_calls(ring))
        return error;
    io_uring_queue_exit(ring);
    return ENOSYS;
}

static bool watch(struct uring *u, Error **errp)
{
    if (u->raw->loop)
        return loop_add_fd(u->raw->loop, u->ring.ring_fd, EPOLLIN, ring_ready, u, errp);
    u->reaper = task_start("disk", reap_always, u, errp);
    return u->reaper;
}

static bool uring_open(struct raw *raw, Error **errp)
{
    struct uring *u = calloc(1, sizeof(*u));
    int error = u ? make_ring(&u->ring) : ENOMEM;

    if (error) {
        error_setg_errno(errp, error, "disk %s: io_uring cannot be used", raw->block.id);
        free(u);
        return false;
    }
    u->raw = raw;
    u->turn = (struct loop_deferred){.fn = take_turn, .opaque = u};
    raw->engine_state = u;
    task_mutex_init(&u->lock);
    task_cond_init(&u->changed);
    raw_list_init(&u->waiting);
    if (watch(u, errp))
        return true;
    uring_close(raw);
    return false;
}

const struct raw_engine raw_uring = {.name = "io_uring",
                                     .open = uring_open,
                                     .submit = uring_submit,
                                     .drain = uring_drain,
                                     .close = uring_close};

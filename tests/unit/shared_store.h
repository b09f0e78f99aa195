/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared store: a disk whose bytes are memory that processes share, so that they survive who is killed, as a
 * file does. Threads carry requests out, slowly and in any order; the gate, when it is closed, keeps them
 * from carrying out any more: what is in the bytes then is exactly what has been completed.
 *
 *     Block *b = shared_store_open("root", bytes, size, seed);
 *     shared_store_close_gate();
 *     memcpy(snapshot, bytes, size);
 *     shared_store_open_gate();
 */
#ifndef TESTS_SHARED_STORE_H
#define TESTS_SHARED_STORE_H

#include "block/block.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STORE_THREADS 3
#define STORE_DEPTH   256

struct shared_store {
    Block block;
    uint8_t *bytes;
    pthread_t threads[STORE_THREADS];
    pthread_mutex_t head; /* it reads and writes one thing at a time */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct block_request *queue[STORE_DEPTH];
    unsigned count, under_way, seed;
    bool stopping;
};

/* One for all stores of a process; called for each request, before it is carried out. */
static pthread_rwlock_t shared_store_gate;
static void (*shared_store_hook)(void);

static inline void shared_store_init(void (*hook)(void))
{
    pthread_rwlockattr_t attr;

    shared_store_hook = hook;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&shared_store_gate, &attr);
    pthread_rwlockattr_destroy(&attr);
}

static inline void shared_store_close_gate(void)
{
    pthread_rwlock_wrlock(&shared_store_gate);
}

static inline void shared_store_open_gate(void)
{
    pthread_rwlock_unlock(&shared_store_gate);
}

static inline void shared_store_carry_out(struct shared_store *s, struct block_request *r)
{
    if (shared_store_hook)
        shared_store_hook();
    pthread_rwlock_rdlock(&shared_store_gate);
    pthread_mutex_lock(&s->head);
    if (r->op == BLOCK_READ)
        memcpy(r->data, s->bytes + r->offset, r->size);
    else if (r->op == BLOCK_WRITE)
        memcpy(s->bytes + r->offset, r->data, r->size);
    else if (r->op == BLOCK_ZERO)
        memset(s->bytes + r->offset, 0, r->size);
    pthread_mutex_unlock(&s->head);
    block_complete(r, 0);
    pthread_rwlock_unlock(&shared_store_gate);
}

/* Lock held. */
static inline struct block_request *shared_store_take(struct shared_store *s, unsigned *ret_delay)
{
    unsigned i = (unsigned)rand_r(&s->seed) % s->count;
    struct block_request *r = s->queue[i];

    s->queue[i] = s->queue[--s->count];
    s->under_way++;
    *ret_delay = (unsigned)rand_r(&s->seed) % 4 ? 0 : (unsigned)rand_r(&s->seed) % 300;
    return r;
}

static inline void *shared_store_run(void *arg)
{
    struct shared_store *s = arg;
    unsigned delay;

    pthread_mutex_lock(&s->lock);
    while (!s->stopping || s->count) {
        struct block_request *r;

        if (!s->count) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        r = shared_store_take(s, &delay);
        pthread_mutex_unlock(&s->lock);
        if (delay)
            usleep(delay);
        shared_store_carry_out(s, r);
        pthread_mutex_lock(&s->lock);
        s->under_way--;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static inline void shared_store_submit(Block *b, struct block_request *r)
{
    struct shared_store *s = (struct shared_store *)b;

    pthread_mutex_lock(&s->lock);
    assert(s->count < STORE_DEPTH);
    s->queue[s->count++] = r;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static inline void shared_store_drain(Block *b)
{
    struct shared_store *s = (struct shared_store *)b;

    pthread_mutex_lock(&s->lock);
    while (s->count || s->under_way)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static inline void shared_store_close(Block *b)
{
    struct shared_store *s = (struct shared_store *)b;

    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < STORE_THREADS; i++)
        pthread_join(s->threads[i], NULL);
    pthread_mutex_destroy(&s->head);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

static const struct block_ops shared_store_ops = {
    .name = "shared store",
    .submit = shared_store_submit,
    .drain = shared_store_drain,
    .close = shared_store_close,
};

static inline Block *shared_store_open(const char *id, uint8_t *bytes, uint64_t size, unsigned seed)
{
    struct shared_store *s = calloc(1, sizeof(*s));

    assert(s);
    s->block = (Block){.ops = &shared_store_ops, .size = size};
    strncpy(s->block.id, id, sizeof(s->block.id) - 1);
    s->bytes = bytes;
    s->seed = seed;
    pthread_mutex_init(&s->head, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    for (int i = 0; i < STORE_THREADS; i++) {
        if (pthread_create(&s->threads[i], NULL, shared_store_run, s))
            abort();
    }
    return &s->block;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_missing.h"
#include "sim_runtime.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct sim_missing {
    MissingPages mp;
    struct sim_missing_watch watch;
    struct task_mutex lock;
    struct task_cond changed;
    uint64_t touched; /* and not told yet */
    uint64_t placed;
    bool woken, abandoned;
};

static struct sim_missing *of(MissingPages *mp)
{
    return (struct sim_missing *)mp;
}

static bool discard(MissingPages *mp, uint64_t first, uint64_t count, Error **errp)
{
    (void)errp;
    if (fallocate(mp->memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(first * GUEST_PAGE_SIZE), (off_t)(count * GUEST_PAGE_SIZE)) < 0)
        abort();
    return true;
}

static int wait_for_touch(MissingPages *mp, uint64_t *ret_page)
{
    struct sim_missing *s = of(mp);
    bool found;

    task_lock(&s->lock);
    while (!s->woken && !s->touched)
        task_wait(&s->changed, &s->lock);
    s->woken = false;
    found = s->touched;
    if (found) {
        *ret_page = (uint64_t)__builtin_ctzll(s->touched);
        s->touched &= s->touched - 1;
    }
    task_unlock(&s->lock);
    return found;
}

static bool put(MissingPages *mp, uint64_t page, const void *data, Error **errp)
{
    uint8_t *host = guest_memory_page_host(mp->memory, page);

    (void)errp;
    if (!(sim_missing_set(mp) & UINT64_C(1) << page))
        return true;
    if (data)
        memcpy(host, data, GUEST_PAGE_SIZE);
    else
        memset(host, 0, GUEST_PAGE_SIZE);
    of(mp)->placed |= UINT64_C(1) << page;
    of(mp)->watch.placed(of(mp)->watch.opaque, page);
    return true;
}

static void wake(MissingPages *mp)
{
    struct sim_missing *s = of(mp);

    task_lock(&s->lock);
    s->woken = true;
    task_broadcast(&s->changed);
    task_unlock(&s->lock);
}

static void abandon(MissingPages *mp)
{
    struct sim_missing *s = of(mp);

    s->abandoned = true;
    s->watch.abandoned(s->watch.opaque);
}

static void free_missing(MissingPages *mp)
{
    struct sim_missing *s = of(mp);

    s->watch.gone(s->watch.opaque);
    task_cond_destroy(&s->changed);
    task_mutex_destroy(&s->lock);
    missing_destroy(mp);
    free(s);
}

static const struct missing_ops ops = {
    .discard = discard,
    .wait = wait_for_touch,
    .put = put,
    .wake = wake,
    .abandon = abandon,
    .free = free_missing,
};

MissingPages *sim_missing_new(GuestMemory *m, const struct sim_missing_watch *watch, Error **errp)
{
    struct sim_missing *s = calloc(1, sizeof(*s));

    assert(m->page_count <= 64);
    if (!s || !missing_init(&s->mp, &ops, m, errp))
        abort();
    s->watch = *watch;
    task_mutex_init(&s->lock);
    task_cond_init(&s->changed);
    return &s->mp;
}

uint64_t sim_missing_set(const MissingPages *mp)
{
    const struct sim_missing *s = (const struct sim_missing *)mp;

    return s->abandoned ? 0 : mp->missing[0] & ~s->placed;
}

bool sim_missing_abandoned(const MissingPages *mp)
{
    return ((const struct sim_missing *)mp)->abandoned;
}

void sim_missing_touch(MissingPages *mp, uint64_t page)
{
    struct sim_missing *s = of(mp);

    task_lock(&s->lock);
    s->touched |= UINT64_C(1) << page;
    task_broadcast(&s->changed);
    task_unlock(&s->lock);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest/missing.h"
#include "base/bitmap.h"

#include <errno.h>
#include <stdlib.h>

bool missing_init(MissingPages *mp, const struct missing_ops *ops, GuestMemory *m, Error **errp)
{
    mp->ops = ops;
    mp->memory = m;
    mp->again = m->page_count;
    task_mutex_init(&mp->lock);
    mp->missing = calloc(1, bitmap_bytes(m->page_count));
    mp->asked = calloc(1, bitmap_bytes(m->page_count));
    if (mp->missing && mp->asked)
        return true;
    error_setg_errno(errp, ENOMEM, "bitmaps of missing pages");
    missing_destroy(mp);
    return false;
}

void missing_destroy(MissingPages *mp)
{
    task_mutex_destroy(&mp->lock);
    free(mp->missing);
    free(mp->asked);
}

bool missing_discard(MissingPages *mp, uint64_t first, uint64_t count, Error **errp)
{
    bool sealed;

    task_lock(&mp->lock);
    sealed = mp->sealed;
    for (uint64_t page = first; page < first + count && !sealed; page++) {
        mp->left += !bitmap_test(mp->missing, page);
        bitmap_set(mp->missing, page);
    }
    task_unlock(&mp->lock);
    if (sealed)
        error_setg(errp, "memory is said to be missing of a guest that may run");
    return !sealed && mp->ops->discard(mp, first, count, errp);
}

void missing_seal(MissingPages *mp)
{
    task_lock(&mp->lock);
    mp->sealed = true;
    task_unlock(&mp->lock);
}

bool missing_place(MissingPages *mp, uint64_t page, const void *data, Error **errp)
{
    bool wanted;

    task_lock(&mp->lock);
    wanted = bitmap_test(mp->missing, page);
    task_unlock(&mp->lock);
    if (!wanted) /* it came on the other connection, or nobody asked for it: what is there stays */
        return true;
    if (!mp->ops->put(mp, page, data, errp))
        return false;
    task_lock(&mp->lock);
    mp->left -= bitmap_test(mp->missing, page);
    bitmap_clear(mp->missing, page);
    bitmap_clear(mp->asked, page);
    task_unlock(&mp->lock);
    return true;
}

/* One that was told before the connection broke. */
static bool next_again(MissingPages *mp, uint64_t *ret_page)
{
    uint64_t count = mp->memory->page_count;
    bool found;

    task_lock(&mp->lock);
    *ret_page = bitmap_find_next(mp->asked, count, mp->again);
    found = *ret_page < count;
    mp->again = found ? *ret_page + 1 : count;
    task_unlock(&mp->lock);
    return found;
}

enum touch { TOUCH_FIRST, TOUCH_AGAIN, TOUCH_OTHER };

static enum touch note_touch(MissingPages *mp, uint64_t page)
{
    enum touch t = TOUCH_OTHER;

    task_lock(&mp->lock);
    if (bitmap_test(mp->missing, page)) {
        t = bitmap_test(mp->asked, page) ? TOUCH_AGAIN : TOUCH_FIRST;
        bitmap_set(mp->asked, page);
    }
    task_unlock(&mp->lock);
    return t;
}

static bool is_closed(MissingPages *mp)
{
    bool closed;

    task_lock(&mp->lock);
    closed = mp->closed;
    task_unlock(&mp->lock);
    return closed;
}

bool missing_next(MissingPages *mp, uint64_t *ret_page)
{
    while (!is_closed(mp)) {
        int status;

        if (next_again(mp, ret_page))
            return true;
        status = mp->ops->wait(mp, ret_page);
        if (status < 0)
            return false;
        switch (status ? note_touch(mp, *ret_page) : TOUCH_AGAIN) {
        case TOUCH_FIRST:
            return true;
        case TOUCH_AGAIN:
            break;
        case TOUCH_OTHER: /* never written by anybody, or placed a moment ago */
            if (!mp->ops->put(mp, *ret_page, NULL, NULL))
                return false;
        }
    }
    return false;
}

uint64_t missing_left(MissingPages *mp)
{
    uint64_t left;

    task_lock(&mp->lock);
    left = mp->left;
    task_unlock(&mp->lock);
    return left;
}

bool missing_find(MissingPages *mp, uint64_t from, uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t count = mp->memory->page_count, end;

    task_lock(&mp->lock);
    *ret_first = bitmap_find_next(mp->missing, count, from);
    for (end = *ret_first; end < count && bitmap_test(mp->missing, end); end++)
        ;
    task_unlock(&mp->lock);
    *ret_count = end - *ret_first;
    return *ret_count;
}

void missing_shutdown(MissingPages *mp)
{
    task_lock(&mp->lock);
    mp->closed = true;
    task_unlock(&mp->lock);
    mp->ops->wake(mp);
}

void missing_ask_again(MissingPages *mp)
{
    task_lock(&mp->lock);
    mp->again = 0;
    task_unlock(&mp->lock);
    mp->ops->wake(mp);
}

void missing_abandon(MissingPages *mp)
{
    mp->ops->abandon(mp);
}

void missing_free(MissingPages *mp)
{
    if (mp)
        mp->ops->free(mp);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/raw_group.h"

#include <stdlib.h>

#define STAGE_ALONE 1 /* of a read or write that was in a group that failed */

static bool goes_with(const struct block_request *r, const struct block_request *next)
{
    return next && next->op == r->op && next->offset == r->offset + r->size && next->stage != STAGE_ALONE;
}

static bool may_begin(const struct block_request *r)
{
    return r && (r->op == BLOCK_READ || r->op == BLOCK_WRITE) && r->stage != STAGE_ALONE &&
           goes_with(r, r->next) && r->size + r->next->size <= RAW_GROUP_SIZE;
}

static void add(struct raw_group *g, struct block_request *r)
{
    g->requests[g->count] = r;
    g->iov[g->count] = (struct iovec){.iov_base = r->data, .iov_len = r->size};
    g->count++;
    g->size += r->size;
}

struct raw_group *raw_group_take(struct raw_list *l)
{
    struct block_request *r = l->first;
    struct raw_group *g = may_begin(r) ? malloc(sizeof(*g)) : NULL;

    if (!g)
        return NULL;
    g->op = r->op;
    g->offset = r->offset;
    g->count = 0;
    g->size = 0;
    do {
        r = raw_list_take(l);
        add(g, r);
    } while (g->count < RAW_GROUP_MAX && goes_with(r, l->first) &&
             g->size + l->first->size <= RAW_GROUP_SIZE);
    return g;
}

void raw_group_split(struct raw_group *g, struct raw_list *l)
{
    for (unsigned i = 0; i < g->count; i++) {
        g->requests[i]->stage = STAGE_ALONE;
        raw_list_put(l, g->requests[i]);
    }
    free(g);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "requests.h"

#define CLIENTS 1024

static struct client {
    uint64_t id, last, nonce, chain;
} clients[CLIENTS];

static volatile struct guest_count_status *count;
static requests_torn tell_torn;

/* Open addressing; NULL: the table is full. */
static struct client *find_client(uint64_t id)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &clients[((id * 0x9e3779b97f4a7c15ull >> 32) + i) % CLIENTS];
        if (c->id == 0) {
            c->id = id;
            count->clients++;
        }
        if (c->id == id)
            return c;
    }
    return 0;
}

/* Page visit v (from 0) writes page v % pages for the (v / pages + 1)-th time. */
static bool visit(uint64_t v)
{
    uint64_t page = v % count->pages, times = v / count->pages;
    volatile uint64_t *word = (uint64_t *)(count->start + page * GUEST_PAGE);
    volatile uint64_t *last = word + GUEST_PAGE / 8 - 1;

    if (*word != times || *last != times * page) {
        bool first = *word != times;
        tell_torn((uintptr_t)(first ? word : last), first ? *word : *last, first ? times : times * page);
        return false;
    }
    *word = times + 1;
    *last = (times + 1) * page;
    return true;
}

static enum guest_answer carry_out(struct client *c, const struct guest_message *m)
{
    if (m->seq == c->last && c->last) {
        count->repeated++;
        return m->nonce == c->nonce ? GUEST_ANSWER_OK : GUEST_ANSWER_NONCE;
    }
    if (m->seq <= c->last) {
        count->old++;
        return GUEST_ANSWER_OLD;
    }
    if (m->seq != c->last + 1) {
        count->gaps++;
        return GUEST_ANSWER_GAP;
    }
    for (uint64_t i = 0; i < count->dirty; i++)
        if (!visit(count->counter * count->dirty + i))
            return GUEST_ANSWER_FAILED;
    c->last = m->seq;
    c->nonce = m->nonce;
    c->chain = guest_chain(c->chain, m->nonce);
    count->counter++;
    return GUEST_ANSWER_OK;
}

void requests_start(volatile struct guest_count_status *s, requests_torn torn)
{
    count = s;
    tell_torn = torn;
    if (count->pages == 0)
        count->pages = 1;
    __builtin_memset((void *)count->start, 0, count->pages * GUEST_PAGE);
}

void requests_answer(struct guest_message *m, bool failed)
{
    struct client *c = m->client ? find_client(m->client) : 0;

    if (!c) {
        m->answer = GUEST_ANSWER_FULL;
        return;
    }
    m->answer = failed ? GUEST_ANSWER_FAILED : carry_out(c, m);
    m->value = c->last;
    m->chain = c->chain;
    m->counter = count->counter;
}

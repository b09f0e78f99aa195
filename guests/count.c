/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * count: carries out numbered requests, each once, and proves it (GUEST_OP_COUNT in guest_abi.h). Each
 * request also dirties a few pages of a ring and checks what an earlier one left there, so that an answer
 * vouches for more than one page of memory.
 */
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"

const char guest_name[] = "count";

#define CLIENTS 1024

static struct client {
    uint64_t id, last, nonce, chain;
} clients[CLIENTS];

/* Open addressing; NULL: the table is full. */
static struct client *find_client(uint64_t id)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &clients[((id * 0x9e3779b97f4a7c15ull >> 32) + i) % CLIENTS];
        if (c->id == 0) {
            c->id = id;
            status.count.clients++;
        }
        if (c->id == id)
            return c;
    }
    return NULL;
}

/* Page visit v (from 0) writes page v % pages for the (v / pages + 1)-th time. */
static bool visit(uint64_t v)
{
    uint64_t page = v % status.count.pages, times = v / status.count.pages;
    volatile uint64_t *word = (uint64_t *)(status.count.start + page * GUEST_PAGE);
    volatile uint64_t *last = word + GUEST_PAGE / 8 - 1;

    if (*word != times || *last != times * page) {
        guest_fail(GUEST_ERROR_TORN, (uintptr_t)word, *word, times);
        print("TORN page=%x have=%x/%x want=%x/%x\n", (uint64_t)word, *word, *last, times, times * page);
        return false;
    }
    *word = times + 1;
    *last = (times + 1) * page;
    return true;
}

static enum guest_answer carry_out(struct client *c, const struct guest_message *m)
{
    if (m->seq == c->last && c->last) {
        status.count.repeated++;
        return m->nonce == c->nonce ? GUEST_ANSWER_OK : GUEST_ANSWER_NONCE;
    }
    if (m->seq <= c->last) {
        status.count.old++;
        return GUEST_ANSWER_OLD;
    }
    if (m->seq != c->last + 1) {
        status.count.gaps++;
        return GUEST_ANSWER_GAP;
    }
    for (uint64_t i = 0; i < status.count.dirty; i++)
        if (!visit(status.count.counter * status.count.dirty + i))
            return GUEST_ANSWER_FAILED;
    c->last = m->seq;
    c->nonce = m->nonce;
    c->chain = guest_chain(c->chain, m->nonce);
    status.count.counter++;
    return GUEST_ANSWER_OK;
}

static bool answer(struct guest_message *m)
{
    struct client *c;

    if (m->op != GUEST_OP_COUNT)
        return false;
    c = m->client ? find_client(m->client) : NULL;
    if (!c) {
        m->answer = GUEST_ANSWER_FULL;
        return true;
    }
    m->answer = status.errors ? GUEST_ANSWER_FAILED : carry_out(c, m);
    m->value = c->last;
    m->chain = c->chain;
    m->counter = status.count.counter;
    return true;
}

static void second_main(void)
{
    for (;;) {
        status.heartbeat[1]++;
        cpu_relax();
    }
}

void guest_main(void)
{
    status.count.start = option_number("start", 16 << 20) & ~(uint64_t)(GUEST_PAGE - 1);
    status.count.pages = option_number("pages", 1024);
    status.count.dirty = option_number("dirty", 2);
    if (status.count.pages == 0)
        status.count.pages = 1;
    memset((void *)status.count.start, 0, status.count.pages * GUEST_PAGE);
    if (option_number("cpus", 1) > 1)
        status.cpus = cpu_start_second(second_main) ? 2 : 1;
    if (!service_start(answer, -1, false)) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("count: no network: give it a virtio-net and ip=\n");
        return;
    }
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("count: running\n");
    while (status.errors == 0) {
        service_poll();
        status.heartbeat[0]++;
        cpu_relax();
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_world.h"
#include "sim_history.h"
#include "sim_observer.h"

#include <stdlib.h>
#include <string.h>

#define PORT_FRAMES 32

struct port {
    NetPort net;
    struct port *next;
    SimHost *host;
    struct sim_frame frames[PORT_FRAMES];
    unsigned first, count;
};

struct client {
    uint32_t id;
    uint64_t next;  /* number of the request under way */
    uint64_t chain; /* after it */
    uint64_t answered;
    int64_t patience, pause;
};

static struct port *ports;
static struct client clients[WORLD_CLIENTS];
static struct sim_rng rng;
static bool stopped;

uint64_t world_chain(uint64_t chain, uint32_t client, uint64_t k)
{
    return sim_mix(chain ^ sim_mix(k * 16 + client));
}

/* --- from the hosts --- */

static void client_hears(const struct sim_frame *f)
{
    struct client *c = &clients[f->client];

    if (f->client >= WORLD_CLIENTS)
        sim_fail("an answer to no client");
    if (f->kind == FRAME_GAP && f->request < c->next)
        sim_fail("client %u's request %llu was answered and then lost: the guest expects %llu", c->id,
                 (unsigned long long)c->next - 1, (unsigned long long)f->request);
    if (f->kind != FRAME_ANSWER || f->request != c->next || c->answered == c->next)
        return; /* late: the answer to an earlier sending */
    if (f->chain != c->chain)
        sim_fail("client %u's request %llu met a guest with another past", c->id,
                 (unsigned long long)f->request);
    c->answered = c->next;
    sim_wake(c);
}

static void frame_leaves(SimHost *h, const struct sim_frame *f)
{
    struct effect e = {.lineage = f->lineage, .step = f->step, .number = f->number};

    e.kind = f->kind == FRAME_ANNOUNCE ? EFFECT_ANNOUNCE : EFFECT_FRAME;
    sim_trace("frame %llu (kind %u, request %llu of %u) of lineage %u, step %llu",
              (unsigned long long)f->number, f->kind, (unsigned long long)f->request, f->client, f->lineage,
              (unsigned long long)f->step);
    observer_check(h, e.step);
    history_effect(&e);
    if (f->kind == FRAME_ANSWER || f->kind == FRAME_GAP)
        client_hears(f);
}

static bool port_send(NetPort *p, const struct iovec *iov, int n)
{
    struct sim_frame f;
    size_t have = 0;

    for (int i = 0; i < n; i++) {
        if (have + iov[i].iov_len > sizeof(f))
            sim_fail("a frame of the wrong size");
        memcpy((uint8_t *)&f + have, iov[i].iov_base, iov[i].iov_len);
        have += iov[i].iov_len;
    }
    if (have != sizeof(f))
        sim_fail("a frame of the wrong size");
    frame_leaves(((struct port *)p)->host, &f);
    return true;
}

void world_console(void *host, const void *buf, size_t n)
{
    const uint8_t *p = buf;

    /* The guest writes whole records; the gate may cut them anywhere, but it is given no reason to. */
    if (n % sizeof(struct sim_console_record))
        sim_fail("console bytes came out in other pieces than they went in");
    for (; n; n -= sizeof(struct sim_console_record), p += sizeof(struct sim_console_record)) {
        struct sim_console_record r;
        struct effect e = {.kind = EFFECT_CONSOLE};

        memcpy(&r, p, sizeof(r));
        e.lineage = r.lineage;
        e.step = r.step;
        e.number = r.number;
        sim_trace("console %llu of lineage %u, step %llu", (unsigned long long)r.number, r.lineage,
                  (unsigned long long)r.step);
        observer_check(host, r.step);
        history_effect(&e);
    }
}

/* --- to the hosts --- */

static size_t port_receive(NetPort *net, void *buf, size_t size)
{
    struct port *p = (struct port *)net;

    if (!p->count || size < sizeof(struct sim_frame))
        return 0;
    memcpy(buf, &p->frames[p->first], sizeof(struct sim_frame));
    p->first = (p->first + 1) % PORT_FRAMES;
    p->count--;
    return sizeof(struct sim_frame);
}

static void broadcast(const struct sim_frame *f)
{
    for (struct port *p = ports; p; p = p->next) {
        if (sim_host_state(p->host) == SIM_HOST_DEAD || p->count == PORT_FRAMES || sim_rng_one_in(&rng, 50))
            continue; /* networks lose frames */
        p->frames[(p->first + p->count++) % PORT_FRAMES] = *f;
    }
}

static bool port_set_offload(NetPort *p, uint64_t guest_features, Error **errp)
{
    (void)p, (void)guest_features, (void)errp;
    return true;
}

static int port_poll_fd(NetPort *p)
{
    (void)p;
    return -1;
}

static void port_close(NetPort *net)
{
    for (struct port **p = &ports; *p; p = &(*p)->next) {
        if (&(*p)->net == net) {
            *p = (*p)->next;
            break;
        }
    }
    free(net);
}

static const struct net_port_ops port_ops = {
    .send = port_send,
    .receive = port_receive,
    .set_offload = port_set_offload,
    .poll_fd = port_poll_fd,
    .close = port_close,
};

NetPort *world_port_new(SimHost *h)
{
    struct port *p = calloc(1, sizeof(*p));

    if (!p)
        abort();
    p->net.ops = &port_ops;
    p->net.id = "net0";
    p->host = h;
    p->next = ports;
    ports = p;
    return &p->net;
}

/* --- clients --- */

static void client_main(void *arg)
{
    struct client *c = arg;

    while (!stopped) {
        struct sim_frame f = {.kind = FRAME_REQUEST, .client = c->id, .request = c->next};
        int64_t until;

        broadcast(&f);
        until = sim_now() + c->patience;
        while (c->answered < c->next && sim_now() < until)
            sim_block(c, until);
        if (c->answered < c->next)
            continue;
        c->chain = world_chain(c->chain, c->id, ++c->next);
        sim_sleep(sim_rng_range(&rng, 0, c->pause));
    }
}

void world_start(SimHost *h, uint64_t seed)
{
    rng = sim_rng_make(seed, 5);
    for (uint32_t i = 0; i < WORLD_CLIENTS; i++) {
        clients[i] = (struct client){.id = i, .next = 1, .chain = world_chain(0, i, 1)};
        clients[i].patience = sim_rng_range(&rng, 20, 200) * NS_PER_MS;
        clients[i].pause = sim_rng_range(&rng, 1, 100) * NS_PER_MS;
        sim_spawn(h, "client", client_main, &clients[i]);
    }
}

void world_stop(void)
{
    stopped = true;
}

uint64_t world_answered(uint32_t client)
{
    return clients[client].answered;
}

uint64_t world_progress(void)
{
    uint64_t least = clients[0].answered;

    for (int i = 1; i < WORLD_CLIENTS; i++)
        if (clients[i].answered < least)
            least = clients[i].answered;
    return least;
}

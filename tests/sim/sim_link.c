/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_link.h"
#include "sim_pipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINE 64 /* bytes */

struct connection;

struct end {
    Channel ch;
    struct connection *connection;
    struct sim_pipe *in, *out;
    SimHost *host;
    bool shut;   /* channel_shutdown() was called here */
    bool closed; /* nobody uses it any more */
    bool silent; /* and its machine has no power to say so */
};

struct connection {
    struct connection *next;
    uint64_t number;
    struct sim_pipe pipes[2];
    struct end ends[2];
};

struct listening {
    struct transport transport;
    struct listening *next;
    SimHost *host;
    bool shut;
    struct end *waiting[16]; /* connected, not yet accepted */
    int waiting_count;
};

struct doom {
    SimHost *host;
    uint64_t bytes_left;
    void (*crash)(SimHost *h);
};

static struct pipe_params params;
static struct sim_rng rng;
static bool cuts[SIM_MACHINES][SIM_MACHINES];
static struct connection *connections;
static struct listening *listeners;
static struct doom doom[SIM_MACHINES];
static SimHost *finely; /* who sends in small pieces */
static uint64_t last_number;
static const struct sim_link_tap *tap;

void sim_link_init(uint64_t seed)
{
    static const size_t windows[] = {4096, 65536, 1048576}, segments[] = {700, 1460, 16384};

    rng = sim_rng_make(seed, 3);
    params.latency = sim_rng_range(&rng, 20, 3000) * NS_PER_US;
    params.jitter = sim_rng_one_in(&rng, 2) ? 0 : sim_rng_range(&rng, 1, 2 * params.latency);
    params.resend = 200 * NS_PER_MS;
    params.bytes_per_ms = (uint64_t)sim_rng_range(&rng, 5, 1000) * 1000;
    params.window = windows[sim_rng_below(&rng, 3)];
    params.segment = segments[sim_rng_below(&rng, 3)];
    params.short_reads = sim_rng_one_in(&rng, 2);
}

void sim_link_set_tap(const struct sim_link_tap *t)
{
    tap = t;
}

static bool cut_between(const SimHost *from, const SimHost *to)
{
    return cuts[sim_host_machine(from)][sim_host_machine(to)];
}

/* --- connections --- */

static void connection_free(struct connection *c)
{
    for (struct connection **p = &connections; *p; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    pipe_destroy(&c->pipes[0]);
    pipe_destroy(&c->pipes[1]);
    free(c);
}

static void end_failed(struct end *e, int errnum, const char *what, Error **errp)
{
    if (errnum == ETIMEDOUT)
        error_setg_errno(errp, errnum, "%s did not answer in time", e->ch.peer);
    else if (errnum == ECANCELED)
        error_setg_errno(errp, errnum, "the connection to %s was shut down here", e->ch.peer);
    else
        error_setg_errno(errp, errnum, "cannot %s %s", what, e->ch.peer);
}

static ssize_t link_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct end *e = (struct end *)ch;
    int64_t until = sim_from_host_time(e->host, deadline);

    for (;;) {
        struct segment *s = pipe_first(e->in);

        if (e->shut || (s && s->kind == SEGMENT_RST && s->arrives <= sim_now())) {
            end_failed(e, e->shut ? ECANCELED : ECONNRESET, "read from", errp);
            return -1;
        }
        if (s && s->arrives <= sim_now()) {
            if (s->kind == SEGMENT_FIN)
                return 0;
            if (params.short_reads && n > 1)
                n = sim_rng_below(&rng, n) + 1;
            n = pipe_take(e->in, buf, n, cut_between(e->host, e->in->from));
            sim_wake(e->in);
            if (tap)
                tap->bytes(e->in->from, e->host, e->connection->number, true, buf, n);
            return (ssize_t)n;
        }
        if (until <= sim_now()) {
            end_failed(e, ETIMEDOUT, "read from", errp);
            return -1;
        }
        sim_block(e->in, s && s->arrives < until ? s->arrives : until);
    }
}

/* A host that is to die after so many bytes dies here, when they are on their way. */
static size_t before_doom(SimHost *h, size_t n)
{
    struct doom *d = &doom[sim_host_machine(h)];

    if (d->host != h)
        return n;
    n = n < d->bytes_left ? n : (size_t)d->bytes_left;
    d->bytes_left -= n;
    return n;
}

static void meet_doom(SimHost *h)
{
    struct doom *d = &doom[sim_host_machine(h)];

    if (d->host != h || d->bytes_left)
        return;
    d->host = NULL;
    d->crash(h);
}

/* 0, or why no more can be written. */
static int write_error(struct end *e, int64_t until)
{
    struct segment *s = pipe_first(e->in);
    struct end *other = &e->connection->ends[e == e->connection->ends];

    if (e->shut)
        return ECANCELED;
    if (s && s->kind == SEGMENT_RST && s->arrives <= sim_now())
        return EPIPE;
    if (e->in->refused_from && e->in->refused_from <= sim_now())
        return EPIPE;
    if (other->closed && !other->silent && !cut_between(e->host, other->host) &&
        !cut_between(other->host, e->host))
        pipe_refuse(e->in, &params);
    return until <= sim_now() ? ETIMEDOUT : 0;
}

/* When a writer that waits for room should look again. */
static int64_t bad_news(struct end *e, int64_t until)
{
    struct segment *s = pipe_first(e->in);

    if (s && s->kind == SEGMENT_RST && s->arrives < until)
        until = s->arrives;
    if (e->in->refused_from && e->in->refused_from < until)
        until = e->in->refused_from;
    return until;
}

static bool write_part(struct end *e, const uint8_t *p, size_t n, int64_t until, Error **errp)
{
    while (n) {
        size_t room = pipe_room(e->out, &params), part = n;
        int errnum = write_error(e, until);

        if (errnum) {
            end_failed(e, errnum, "write to", errp);
            return false;
        }
        if (!room) {
            sim_block(e->out, bad_news(e, until));
            continue;
        }
        part = part < room ? part : room;
        part = part < params.segment ? part : params.segment;
        part = before_doom(e->host, e->host == finely && part > FINE ? FINE : part);
        if (part) {
            pipe_put(e->out, &params, &rng, p, part, cut_between(e->host, e->out->to));
            sim_wake(e->out);
            if (tap)
                tap->bytes(e->host, e->out->to, e->connection->number, false, p, part);
        }
        meet_doom(e->host);
        p += part;
        n -= part;
    }
    return true;
}

static bool link_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct end *e = (struct end *)ch;
    int64_t until = sim_from_host_time(e->host, deadline);

    for (int i = 0; i < n; i++)
        if (!write_part(e, iov[i].iov_base, iov[i].iov_len, until, errp))
            return false;
    return true;
}

/* This side says no more. Unread bytes make it an abort, as in TCP. */
static void end_speech(struct end *e)
{
    pipe_end(e->out, &params, pipe_has_data(e->in) ? SEGMENT_RST : SEGMENT_FIN,
             cut_between(e->host, e->out->to));
    sim_wake(e->out);
}

static void link_shutdown(Channel *ch)
{
    struct end *e = (struct end *)ch;

    if (e->shut)
        return;
    e->shut = true;
    end_speech(e);
    sim_wake(e->in);
    sim_wake(e->out);
}

static void link_close(Channel *ch)
{
    struct end *e = (struct end *)ch;
    struct connection *c = e->connection;

    end_speech(e);
    e->closed = true;
    sim_wake(e->in); /* who writes to us is refused from now on */
    if (c->ends[0].closed && c->ends[1].closed)
        connection_free(c);
}

static const struct channel_ops link_ops = {
    .read = link_read,
    .write = link_write,
    .shutdown = link_shutdown,
    .close = link_close,
};

static struct connection *connection_new(SimHost *from, SimHost *to)
{
    struct connection *c = calloc(1, sizeof(*c));
    SimHost *hosts[2] = {from, to};

    if (!c)
        abort();
    c->number = ++last_number;
    for (int i = 0; i < 2; i++) {
        struct end *e = &c->ends[i];

        pipe_init(&c->pipes[i], hosts[i], hosts[!i]);
        *e =
            (struct end){.ch = {.ops = &link_ops, .deadline = TIME_NEVER}, .connection = c, .host = hosts[i]};
        e->out = &c->pipes[i];
        e->in = &c->pipes[!i];
        snprintf(e->ch.peer, sizeof(e->ch.peer), "sim:%u", sim_host_machine(hosts[!i]));
    }
    c->next = connections;
    connections = c;
    return c;
}

/* --- the transport --- */

static struct listening *find_listener(unsigned machine)
{
    for (struct listening *l = listeners; l; l = l->next)
        if (sim_host_machine(l->host) == machine && sim_host_state(l->host) != SIM_HOST_DEAD)
            return l;
    return NULL;
}

/* A machine that is dead, frozen or cut off answers nothing, not even no. */
static bool can_hear(SimHost *h, unsigned machine, const struct listening *l)
{
    return l && sim_host_state(l->host) == SIM_HOST_UP && !cuts[sim_host_machine(h)][machine] &&
           !cuts[machine][sim_host_machine(h)];
}

static Channel *link_connect(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    SimHost *h = ((struct listening *)t)->host;
    int64_t until = sim_from_host_time(h, deadline);
    struct listening *l;
    struct connection *c;
    unsigned machine;

    if (sscanf(address, "sim:%u", &machine) != 1 || machine >= SIM_MACHINES) {
        error_setg(errp, "%s is no address of the simulator", address);
        return NULL;
    }
    do {
        sim_sleep(2 * params.latency);
        l = find_listener(machine);
        if (can_hear(h, machine, l))
            break;
        l = NULL; /* whoever listens when we have slept */
        sim_sleep(10 * NS_PER_MS);
    } while (sim_now() < until);
    if (!l) {
        error_setg_errno(errp, ETIMEDOUT, "cannot connect to %s", address);
        return NULL;
    }
    if (l->shut || l->waiting_count == 16) {
        error_setg_errno(errp, ECONNREFUSED, "cannot connect to %s", address);
        return NULL;
    }
    c = connection_new(h, l->host);
    l->waiting[l->waiting_count++] = &c->ends[1];
    sim_wake(l);
    return &c->ends[0].ch;
}

static Channel *link_accept(struct transport *t, Error **errp)
{
    struct listening *l = (struct listening *)t;
    struct end *e;

    while (!l->waiting_count && !l->shut)
        sim_block(l, TIME_NEVER);
    if (l->shut) {
        error_setg_errno(errp, ECANCELED, "the listening side was shut down");
        return NULL;
    }
    e = l->waiting[0];
    memmove(l->waiting, l->waiting + 1, sizeof(l->waiting[0]) * (size_t)--l->waiting_count);
    return &e->ch;
}

static void link_transport_shutdown(struct transport *t)
{
    struct listening *l = (struct listening *)t;

    l->shut = true;
    while (l->waiting_count)
        link_close(&l->waiting[--l->waiting_count]->ch);
    sim_wake(l);
}

struct transport *sim_transport_new(SimHost *h)
{
    struct listening *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    l->transport = (struct transport){link_connect, link_accept, link_transport_shutdown, NULL};
    l->host = h;
    l->next = listeners;
    listeners = l;
    return &l->transport;
}

void sim_transport_free(struct transport *t)
{
    struct listening *l = (struct listening *)t;

    if (!l)
        return;
    link_transport_shutdown(t);
    for (struct listening **p = &listeners; *p; p = &(*p)->next) {
        if (*p == l) {
            *p = l->next;
            break;
        }
    }
    free(l);
}

/* --- faults --- */

bool sim_link_is_cut(unsigned from, unsigned to)
{
    return cuts[from][to];
}

static bool runs(const struct sim_pipe *p, unsigned from, unsigned to)
{
    return sim_host_machine(p->from) == from && sim_host_machine(p->to) == to;
}

void sim_link_cut(unsigned from, unsigned to)
{
    cuts[from][to] = true;
    for (struct connection *c = connections; c; c = c->next)
        for (int i = 0; i < 2; i++)
            if (runs(&c->pipes[i], from, to))
                pipe_cut(&c->pipes[i]);
}

void sim_link_heal(unsigned from, unsigned to)
{
    if (!cuts[from][to])
        return;
    cuts[from][to] = false;
    for (struct connection *c = connections; c; c = c->next) {
        for (int i = 0; i < 2; i++) {
            if (runs(&c->pipes[i], from, to))
                pipe_heal(&c->pipes[i], &params, &rng);
            if (runs(&c->pipes[i], to, from))
                pipe_heal_acks(&c->pipes[i]);
        }
    }
}

void sim_link_reset(unsigned a, unsigned b)
{
    for (struct connection *c = connections; c; c = c->next) {
        if (!runs(&c->pipes[0], a, b) && !runs(&c->pipes[0], b, a))
            continue;
        for (int i = 0; i < 2; i++) {
            struct sim_pipe *p = &c->pipes[i];

            pipe_drop(p, sim_rng_one_in(&rng, 2));
            pipe_end(p, &params, SEGMENT_RST, cut_between(p->from, p->to));
            sim_wake(p);
        }
    }
}

void sim_link_crash_after(SimHost *h, uint64_t bytes, void (*crash)(SimHost *h))
{
    doom[sim_host_machine(h)] = (struct doom){h, bytes, crash};
}

void sim_link_send_finely(SimHost *h)
{
    finely = h;
}

void sim_link_host_died(SimHost *h, enum sim_death how)
{
    for (struct connection *c = connections, *next; c; c = next) {
        next = c->next;
        for (int i = 0; i < 2; i++) {
            struct end *e = &c->ends[i];

            if (e->host != h || e->closed)
                continue;
            if (how == DEATH_POWER)
                pipe_drop(e->out, false);
            else if (how == DEATH_PROCESS)
                end_speech(e);
            sim_wake(e->in);
            e->closed = true;
            e->silent = how != DEATH_PROCESS;
        }
        if (c->ends[0].closed && c->ends[1].closed)
            connection_free(c);
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client of the `count` guest (guests/guest_abi.h has the protocol): numbers its requests, resends each by
 * its number until it is answered, one in flight, and closes with one line of JSON. `lost`: acknowledged
 * requests that the guest no longer knows of. `duplicated`: requests that it carried out more than once. Both
 * are found by the guest's count for this client and by a chain over all nonces.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../../guests/guest_abi.h"

#define OPS         1000   /* options above are ops */
#define RTT_BUCKETS 100000 /* of 10 us: up to a second */

struct options {
    const char *address, *text;
    int port;
    double seconds;
    uint64_t requests;
    int interval_us, resend_ms, wait_ms;
    bool timeline, allow_reboots;
    int op; /* 0: count */
    struct guest_control control;
};

struct totals {
    uint64_t acknowledged, resent, lost, duplicated, reboots, errors, stale;
    double first_answer, last_answer; /* seconds since the start */
    double gap, gap_began, gap_ended; /* the longest time between two answers */
    uint32_t rtt[RTT_BUCKETS];
};

struct client {
    struct options o;
    int fd;
    double start;
    struct guest_message request; /* the one in flight */
    uint64_t chain, next_chain;
    uint64_t boot_id;
    struct totals t;
};

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
    (void)sig;
    stopped = 1;
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t random64(void)
{
    uint64_t v = 0;

    while (getrandom(&v, sizeof(v), 0) != sizeof(v) || v == 0)
        ;
    return v;
}

/* false: nothing usable within that time. The network may be away for a while: errors of the socket are not
 * ours. */
static bool receive(struct client *c, int ms, void *buf, size_t size, size_t *ret_size)
{
    struct guest_message *m = buf;
    double until = now() + ms / 1e3;

    for (;;) {
        int left = (int)((until - now()) * 1e3) + 1;
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (stopped || left <= 0 || (poll(&p, 1, left) <= 0 && now() >= until))
            return false;
        ssize_t n = recv(c->fd, buf, size, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            usleep(1000);
        if (n < (ssize_t)sizeof(*m) || m->magic != GUEST_MESSAGE_MAGIC)
            continue;
        if (m->client == c->request.client && m->seq == c->request.seq && m->nonce == c->request.nonce &&
            m->op == c->request.op) {
            *ret_size = (size_t)n;
            return true;
        }
        c->t.stale++; /* a second answer to a request that was resent */
    }
}

static void timeline(const struct client *c, const char *what, double at)
{
    if (c->o.timeline)
        printf("%9.3f s  %s\n", at, what);
}

static void note_answer(struct client *c, double sent)
{
    struct totals *t = &c->t;
    double at = now() - c->start;
    unsigned rtt = (unsigned)((now() - sent) * 1e5);

    t->rtt[rtt < RTT_BUCKETS ? rtt : RTT_BUCKETS - 1]++;
    if (t->acknowledged++ == 0) {
        t->first_answer = at;
        timeline(c, "first answer", at);
    } else if (at - t->last_answer > t->gap) {
        t->gap = at - t->last_answer;
        t->gap_began = t->last_answer;
        t->gap_ended = at;
    }
    t->last_answer = at;
}

/* The guest is not where we left it: say by how much, and go on from where it is. */
static void resynchronise(struct client *c, const struct guest_message *a, bool rebooted)
{
    uint64_t acknowledged = c->request.seq - 1;
    char line[160];

    if (a->answer == GUEST_ANSWER_FAILED || a->answer == GUEST_ANSWER_FULL ||
        a->answer == GUEST_ANSWER_UNKNOWN) {
        c->t.errors++;
        stopped = 1;
    }
    if (a->value < acknowledged && !(rebooted && c->o.allow_reboots))
        c->t.lost += acknowledged - a->value;
    else if (a->value > c->request.seq)
        c->t.duplicated += a->value - c->request.seq;
    else if (!rebooted)
        c->t.errors++; /* as many, but not the same ones */
    snprintf(line, sizeof(line),
             "the guest has %" PRIu64 " of %" PRIu64 " acknowledged requests (answer %u)%s", a->value,
             acknowledged, a->answer, rebooted ? ", and was rebooted" : "");
    timeline(c, line, now() - c->start);
    c->request.seq = a->value;
    c->next_chain = a->chain;
}

static void judge(struct client *c, const struct guest_message *a, double sent)
{
    bool rebooted = c->boot_id && a->boot_id != c->boot_id;

    c->boot_id = a->boot_id;
    c->t.reboots += rebooted;
    if (a->answer == GUEST_ANSWER_OK && a->value == c->request.seq && a->chain == c->next_chain)
        note_answer(c, sent);
    else
        resynchronise(c, a, rebooted);
    c->chain = c->next_chain;
}

static bool finished(const struct client *c)
{
    return stopped || (c->o.requests && c->t.acknowledged >= c->o.requests) ||
           (c->o.seconds > 0 && now() - c->start >= c->o.seconds);
}

static void run(struct client *c)
{
    uint8_t buf[2048];
    size_t n;

    while (!finished(c)) {
        double sent = now(), first = sent;
        c->request.seq++;
        c->request.nonce = random64();
        c->next_chain = guest_chain(c->chain, c->request.nonce);
        send(c->fd, &c->request, sizeof(c->request), 0);
        while (!receive(c, c->o.resend_ms, buf, sizeof(buf), &n)) {
            if (finished(c))
                return;
            if (now() - sent >= c->o.resend_ms / 1e3) {
                sent = now();
                c->t.resent++;
                send(c->fd, &c->request, sizeof(c->request), 0);
            }
        }
        judge(c, (const struct guest_message *)buf, first);
        if (c->o.interval_us)
            usleep((useconds_t)c->o.interval_us);
    }
}

static unsigned percentile_us(const struct totals *t, double share)
{
    uint64_t left = (uint64_t)((double)t->acknowledged * share);

    for (unsigned i = 0; i < RTT_BUCKETS; i++) {
        if (t->rtt[i] > left)
            return i * 10;
        left -= t->rtt[i];
    }
    return 0;
}

/* Nothing came any more until the end: that is an outage too. */
static void close_gap(struct client *c)
{
    double at = now() - c->start;

    if (at - c->t.last_answer > c->t.gap) {
        c->t.gap = at - c->t.last_answer;
        c->t.gap_began = c->t.last_answer;
        c->t.gap_ended = at;
    }
    if (c->t.gap > 0.05) {
        timeline(c, "longest outage began", c->t.gap_began);
        timeline(c, "longest outage ended", c->t.gap_ended);
    }
}

static int summary(struct client *c)
{
    const struct totals *t = &c->t;

    close_gap(c);
    printf("{\"acknowledged\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"resent\":%" PRIu64
           ",\"reboots\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"stale\":%" PRIu64
           ",\"max_gap_ms\":%.1f,\"max_gap_began_s\":%.3f,\"max_gap_ended_s\":%.3f,\"first_answer_ms\":%.1f"
           ",\"last_answer_s\":%.3f,\"rtt_us_p50\":%u,\"rtt_us_p99\":%u}\n",
           t->acknowledged, t->lost, t->duplicated, t->resent, t->reboots, t->errors, t->stale, t->gap * 1e3,
           t->gap_began, t->gap_ended, t->first_answer * 1e3, t->last_answer, percentile_us(t, 0.5),
           percentile_us(t, 0.99));
    return t->acknowledged && !t->lost && !t->duplicated && !t->errors && (!t->reboots || c->o.allow_reboots)
               ? 0
               : 1;
}

static void print_slow_writes(const struct guest_dirty_status *d)
{
    printf(",\"slow_writes_ns\":%u,\"slow_writes\":[", GUEST_WRITE_BUCKET_NS);
    for (int i = 0; i < GUEST_WRITE_BUCKETS; i++)
        printf("%s%" PRIu32, i ? "," : "", d->slow_writes[i]);
    printf("]");
}

static void print_status(const struct guest_status *s)
{
    printf("{\"name\":\"%.16s\",\"boot_id\":\"%016" PRIx64 "\",\"tsc_khz\":%" PRIu64
           ",\"cpus\":%u,\"state\":%u,\"heartbeat\":[%" PRIu64 ",%" PRIu64 "],\"rounds\":[%" PRIu64
           ",%" PRIu64 "],\"errors\":%" PRIu64 ",\"error\":%u,\"frames_in\":%" PRIu64
           ",\"frames_out\":%" PRIu64 ",\"frames_bad\":%" PRIu64,
           s->name, s->boot_id, s->tsc_khz, s->cpus, s->state, s->heartbeat[0], s->heartbeat[1], s->rounds[0],
           s->rounds[1], s->errors, s->error, s->frames_in, s->frames_out, s->frames_bad);
    if (!strcmp(s->name, "count") || !strcmp(s->name, "log"))
        printf(",\"counter\":%" PRIu64 ",\"clients\":%" PRIu64, s->count.counter, s->count.clients);
    if (!strcmp(s->name, "dirty"))
        printf(",\"pages_written\":%" PRIu64 ",\"gaps\":%" PRIu64 ",\"gap_sum_us\":%" PRIu64
               ",\"gap_max_us\":%" PRIu64 ",\"since_ms\":%" PRIu64,
               s->dirty.pages_written, s->dirty.gaps, s->dirty.gap_sum_ns / 1000, s->dirty.gap_max_ns / 1000,
               (s->dirty.now_ns - s->dirty.since_ns) / 1000000);
    if (!strcmp(s->name, "dirty"))
        print_slow_writes(&s->dirty);
    if (!strcmp(s->name, "irq"))
        printf(",\"sectors\":%" PRIu64 ",\"masked\":%" PRIu64 ",\"halts\":%" PRIu64 ",\"slow\":%" PRIu64,
               s->irq.sectors, s->irq.masked, s->irq.halts, s->irq.slow);
    for (int i = 0; !strcmp(s->name, "irq") && i < GUEST_IRQ_SOURCES; i++)
        printf(",\"irq%d\":[%" PRIu64 ",%" PRIu64 "]", i, s->irq.interrupts[i], s->irq.completions[i]);
    printf("}\n");
}

/* Everything but counting: one request, resent until it is answered or the time is over. */
static int one_request(struct client *c)
{
    uint8_t buf[2048], out[sizeof(struct guest_message) + 512];
    size_t size = sizeof(c->request), n;
    const struct guest_message *a = (const struct guest_message *)buf;
    double until = now() + c->o.wait_ms / 1e3;

    c->request.op = (uint16_t)c->o.op;
    c->request.nonce = random64();
    memcpy(out, &c->request, size);
    if (c->o.op == GUEST_OP_PRINT) {
        size_t text = strnlen(c->o.text, GUEST_TEXT_MAX);
        memcpy(out + size, c->o.text, text);
        size += text;
    }
    if (c->o.op == GUEST_OP_CONTROL) {
        memcpy(out + size, &c->o.control, sizeof(c->o.control));
        size += sizeof(c->o.control);
    }
    do {
        send(c->fd, out, size, 0);
        if (!receive(c, c->o.resend_ms, buf, sizeof(buf), &n))
            continue;
        if (c->o.op == GUEST_OP_STATUS && n >= sizeof(*a) + sizeof(struct guest_status)) {
            struct guest_status s;
            memcpy(&s, buf + sizeof(*a), sizeof(s));
            print_status(&s);
        }
        return a->answer == GUEST_ANSWER_OK ? 0 : 1;
    } while (!stopped && now() < until);
    fprintf(stderr, "count_client: no answer from %s within %d ms\n", c->o.address, c->o.wait_ms);
    return 1;
}

static void usage(FILE *to)
{
    fputs("usage: count_client --address IP [--port 7007] [--seconds S | --requests N] [--interval-us US]\n"
          "                    [--resend-ms 50] [--timeline] [--allow-reboots]\n"
          "       count_client --address IP [--wait-ms 2000] OP\n"
          "OP: --status | --print TEXT | --poweroff | --reset | --reset-keyboard | --triple-fault | --panic\n"
          "    --control rate=N,pages=N,stride=N,reset=0|1,print=0|1 (the dirty guest)\n"
          "Ends with one line of JSON; exit 0: everything that was acknowledged is there, once.\n",
          to);
}

static bool parse_control(char *text, struct guest_control *c)
{
    char *const names[] = {"rate", "pages", "reset", "print", "stride", NULL};
    char *value;

    while (*text) {
        int i = getsubopt(&text, names, &value);
        if (i < 0 || !value)
            return false;
        uint64_t v = strtoull(value, NULL, 0);
        if (i == 0)
            c->rate = v;
        if (i == 1)
            c->pages = v;
        if (i == 2)
            c->reset = (uint32_t)v;
        if (i == 3)
            c->print = (uint32_t)v;
        if (i == 4)
            c->stride = v;
    }
    return true;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"address", 1, 0, 'a'},
        {"port", 1, 0, 'p'},
        {"seconds", 1, 0, 's'},
        {"requests", 1, 0, 'n'},
        {"interval-us", 1, 0, 'i'},
        {"resend-ms", 1, 0, 'r'},
        {"timeline", 0, 0, 't'},
        {"allow-reboots", 0, 0, 'b'},
        {"wait-ms", 1, 0, 'w'},
        {"status", 0, 0, OPS + GUEST_OP_STATUS},
        {"control", 1, 0, OPS + GUEST_OP_CONTROL},
        {"print", 1, 0, OPS + GUEST_OP_PRINT},
        {"poweroff", 0, 0, OPS + GUEST_OP_POWEROFF},
        {"reset", 0, 0, OPS + GUEST_OP_RESET},
        {"reset-keyboard", 0, 0, OPS + GUEST_OP_RESET_KBD},
        {"triple-fault", 0, 0, OPS + GUEST_OP_TRIPLE_FAULT},
        {"panic", 0, 0, OPS + GUEST_OP_PANIC},
        {0, 0, 0, 0},
    };
    int k;

    while ((k = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (k == 'a')
            o->address = optarg;
        else if (k == 'p')
            o->port = atoi(optarg);
        else if (k == 's')
            o->seconds = atof(optarg);
        else if (k == 'n')
            o->requests = strtoull(optarg, NULL, 0);
        else if (k == 'i')
            o->interval_us = atoi(optarg);
        else if (k == 'r')
            o->resend_ms = atoi(optarg) > 0 ? atoi(optarg) : 1;
        else if (k == 't')
            o->timeline = true;
        else if (k == 'b')
            o->allow_reboots = true;
        else if (k == 'w')
            o->wait_ms = atoi(optarg);
        else if (k > OPS)
            o->op = k - OPS;
        else
            return false;
        if (k == OPS + GUEST_OP_PRINT)
            o->text = optarg;
        if (k == OPS + GUEST_OP_CONTROL && !parse_control(optarg, &o->control))
            return false;
    }
    return o->address && optind == argc;
}

int main(int argc, char **argv)
{
    static struct client c = {.o = {.port = GUEST_UDP_PORT, .resend_ms = 50, .wait_ms = 2000}};
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct sigaction sa = {.sa_handler = stop};

    if (!parse(argc, argv, &c.o) || inet_pton(AF_INET, c.o.address, &to.sin_addr) != 1) {
        usage(stderr);
        return 2;
    }
    to.sin_port = htons((uint16_t)c.o.port);
    c.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* connect() needs a route and nothing else; while the guest is away, send() fails and is tried again */
    if (c.fd < 0 || connect(c.fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        perror("count_client: socket");
        return 2;
    }
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    c.start = now();
    c.request =
        (struct guest_message){.magic = GUEST_MESSAGE_MAGIC, .op = GUEST_OP_COUNT, .client = random64()};
    if (c.o.op)
        return one_request(&c);
    run(&c);
    return summary(&c);
}

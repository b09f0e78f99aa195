/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_pipe.h"

#include <stdlib.h>
#include <string.h>

void pipe_init(struct sim_pipe *p, SimHost *from, SimHost *to)
{
    *p = (struct sim_pipe){.from = from, .to = to};
}

void pipe_destroy(struct sim_pipe *p)
{
    free(p->data);
    free(p->segments);
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void grow_data(struct sim_pipe *p, size_t more)
{
    size_t capacity = p->capacity ? p->capacity : 4096;
    uint8_t *data;

    while (capacity < p->size + more)
        capacity *= 2;
    if (capacity == p->capacity)
        return;
    data = malloc(capacity);
    if (!data)
        abort();
    for (size_t i = 0; i < p->size; i++)
        data[i] = p->data[(p->head + i) & (p->capacity - 1)];
    free(p->data);
    p->data = data;
    p->head = 0;
    p->capacity = capacity;
}

static struct segment *segment_at(struct sim_pipe *p, size_t i)
{
    return &p->segments[(p->first + i) & (p->segments_capacity - 1)];
}

static struct segment *add_segment(struct sim_pipe *p)
{
    if (p->count == p->segments_capacity) {
        size_t capacity = p->segments_capacity ? 2 * p->segments_capacity : 16;
        struct segment *s = malloc(capacity * sizeof(*s));

        if (!s)
            abort();
        for (size_t i = 0; i < p->count; i++)
            s[i] = *segment_at(p, i);
        free(p->segments);
        p->segments = s;
        p->first = 0;
        p->segments_capacity = capacity;
    }
    return segment_at(p, p->count++);
}

size_t pipe_room(const struct sim_pipe *p, const struct pipe_params *pp)
{
    return p->unacked < pp->window ? pp->window - p->unacked : 0;
}

static void copy_in(struct sim_pipe *p, const uint8_t *data, size_t n)
{
    size_t at, part;

    grow_data(p, n);
    at = (p->head + p->size) & (p->capacity - 1);
    part = n < p->capacity - at ? n : p->capacity - at;
    memcpy(p->data + at, data, part);
    memcpy(p->data, data + part, n - part);
    p->size += n;
}

void pipe_put(struct sim_pipe *p, const struct pipe_params *pp, struct sim_rng *rng, const uint8_t *data,
              size_t n, bool cut)
{
    struct segment *s;

    if (p->ended)
        return; /* behind an end: nobody will ever read it */
    s = add_segment(p);
    copy_in(p, data, n);
    p->unacked += n;
    p->line_free = later(p->line_free, sim_now()) + (int64_t)(n * 1000000 / pp->bytes_per_ms);
    p->last_arrival = later(p->last_arrival, p->line_free + pp->latency + sim_rng_range(rng, 0, pp->jitter));
    *s = (struct segment){SEGMENT_DATA, n, p->line_free, cut ? TIME_NEVER : p->last_arrival};
}

void pipe_end(struct sim_pipe *p, const struct pipe_params *pp, enum segment_kind kind, bool cut)
{
    if (p->ended)
        return;
    p->ended = true;
    p->last_arrival = later(p->last_arrival, later(p->line_free, sim_now()) + pp->latency);
    *add_segment(p) = (struct segment){kind, 0, sim_now(), cut ? TIME_NEVER : p->last_arrival};
}

void pipe_refuse(struct sim_pipe *p, const struct pipe_params *pp)
{
    if (!p->refused_from)
        p->refused_from = sim_now() + 2 * pp->latency;
}

struct segment *pipe_first(struct sim_pipe *p)
{
    return p->count ? segment_at(p, 0) : NULL;
}

bool pipe_has_data(struct sim_pipe *p)
{
    return p->size > 0;
}

static void copy_out(struct sim_pipe *p, uint8_t *buf, size_t n)
{
    size_t part = n < p->capacity - p->head ? n : p->capacity - p->head;

    memcpy(buf, p->data + p->head, part);
    memcpy(buf + part, p->data, n - part);
    p->head = (p->head + n) & (p->capacity - 1);
    p->size -= n;
}

size_t pipe_take(struct sim_pipe *p, uint8_t *buf, size_t n, bool ack_cut)
{
    size_t taken = 0;

    while (taken < n && p->count) {
        struct segment *s = segment_at(p, 0);
        size_t part = n - taken < s->size ? n - taken : s->size;

        if (s->kind != SEGMENT_DATA || s->arrives > sim_now())
            break;
        copy_out(p, buf + taken, part);
        taken += part;
        s->size -= part;
        if (!s->size) {
            p->first++;
            p->count--;
        }
    }
    if (ack_cut)
        p->unacked_held += taken;
    else
        p->unacked -= taken;
    return taken;
}

void pipe_cut(struct sim_pipe *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (segment_at(p, i)->arrives > sim_now())
            segment_at(p, i)->arrives = TIME_NEVER;
}

void pipe_heal(struct sim_pipe *p, const struct pipe_params *pp, struct sim_rng *rng)
{
    int64_t t = sim_now() + pp->latency + sim_rng_range(rng, 0, pp->resend);

    for (size_t i = 0; i < p->count; i++) {
        struct segment *s = segment_at(p, i);

        if (s->arrives == TIME_NEVER)
            s->arrives = t;
        t = later(t, s->arrives);
    }
    p->last_arrival = later(p->last_arrival, t);
    sim_wake(p);
}

void pipe_heal_acks(struct sim_pipe *p)
{
    p->unacked -= p->unacked_held;
    p->unacked_held = 0;
    sim_wake(p);
}

void pipe_drop(struct sim_pipe *p, bool all)
{
    while (p->count) {
        struct segment *s = segment_at(p, p->count - 1);

        if ((all ? s->arrives : s->departs) <= sim_now())
            break;
        p->size -= s->size;
        p->unacked -= s->size;
        p->ended &= s->kind == SEGMENT_DATA;
        p->count--;
    }
}

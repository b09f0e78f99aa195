/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_history.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LINEAGES 64

struct truth {
    uint64_t step, digest;
};

struct lineage {
    uint32_t parent; /* 0: none */
    uint64_t fork_step;
    uint64_t last_effect; /* highest step that had an effect outside; 0 none */
    uint64_t last_number[EFFECT_KINDS];
    struct truth *truths; /* ascending steps */
    size_t count, capacity;
};

static struct lineage lineages[MAX_LINEAGES]; /* from 1 */
static uint32_t lineage_count;
static struct seen {
    bool *once;
    size_t capacity;
} seen[EFFECT_KINDS];
static uint32_t ended_lineage;
static uint64_t ended_step;
static uint64_t takeovers, boots, effects;

void history_begin(void)
{
    lineage_count = 1;
}

void history_paused(uint32_t lineage, uint64_t step, uint64_t digest)
{
    struct lineage *l = &lineages[lineage];

    if (l->count && l->truths[l->count - 1].step == step) {
        l->truths[l->count - 1].digest = digest;
        return;
    }
    if (l->count == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 256;
        l->truths = realloc(l->truths, l->capacity * sizeof(l->truths[0]));
        if (!l->truths)
            abort();
    }
    l->truths[l->count++] = (struct truth){step, digest};
}

static const struct truth *find_truth(uint32_t lineage, uint64_t step)
{
    const struct lineage *l = &lineages[lineage];

    for (size_t i = l->count; i-- > 0;)
        if (l->truths[i].step == step)
            return &l->truths[i];
    return NULL;
}

static bool descends(uint32_t lineage, uint32_t from)
{
    while (lineage && lineage != from)
        lineage = lineages[lineage].parent;
    return lineage == from;
}

/* Of a lineage that descends from `ancestor`: the last step of the ancestor that belongs to its history. */
static uint64_t left_at(uint32_t lineage, uint32_t ancestor)
{
    while (lineages[lineage].parent != ancestor)
        lineage = lineages[lineage].parent;
    return lineages[lineage].fork_step;
}

static bool both_effective(uint32_t a, uint32_t b)
{
    if (descends(b, a))
        return lineages[a].last_effect > left_at(b, a);
    if (descends(a, b))
        return lineages[b].last_effect > left_at(a, b);
    return true;
}

/* Invariant 3, for a lineage that has just had an effect. */
static void check_no_rival(uint32_t lineage)
{
    for (uint32_t i = 1; i <= lineage_count; i++)
        if (i != lineage && lineages[i].last_effect && both_effective(i, lineage))
            sim_fail("two executions have effects outside: lineage %u up to step %llu, and lineage %u up to "
                     "step %llu",
                     i, (unsigned long long)lineages[i].last_effect, lineage,
                     (unsigned long long)lineages[lineage].last_effect);
}

void history_check(uint32_t lineage, uint64_t step, uint64_t digest)
{
    const struct truth *t;

    if (ended_lineage)
        sim_fail("a takeover of a machine that was switched off");
    if (!lineage || lineage > lineage_count)
        sim_fail("a takeover from a state that is nobody's (lineage %u)", lineage);
    t = find_truth(lineage, step);
    if (!t)
        sim_fail("a takeover at step %llu of lineage %u, where the guest never paused",
                 (unsigned long long)step, lineage);
    if (t->digest != digest)
        sim_fail("a takeover from a torn state at step %llu of lineage %u", (unsigned long long)step,
                 lineage);
}

uint32_t history_take_over(uint32_t lineage, uint64_t step, uint64_t digest)
{
    history_check(lineage, step, digest);
    return history_take_over_early(lineage, step);
}

uint32_t history_take_over_early(uint32_t lineage, uint64_t step)
{
    uint32_t new;

    if (lineage_count + 1 == MAX_LINEAGES)
        sim_fail("too many takeovers");
    new = ++lineage_count;
    lineages[new] = (struct lineage){.parent = lineage, .fork_step = step};
    takeovers++;
    return new;
}

uint32_t history_boot(uint32_t from)
{
    if (ended_lineage)
        sim_fail("a machine that was switched off is started again by itself");
    if (lineage_count + 1 == MAX_LINEAGES)
        sim_fail("too many executions");
    boots++;
    lineages[++lineage_count] = (struct lineage){.parent = from, .fork_step = lineages[from].last_effect};
    return lineage_count;
}

uint32_t history_latest(void)
{
    return lineage_count;
}

static void note_number(enum effect_kind kind, uint64_t number)
{
    struct seen *s = &seen[kind];

    if (number > 1 << 20)
        sim_fail("output number %llu is out of all reason", (unsigned long long)number);
    if (number >= s->capacity) {
        size_t capacity = (size_t)number * 2;

        s->once = realloc(s->once, capacity);
        if (!s->once)
            abort();
        memset(s->once + s->capacity, 0, capacity - s->capacity);
        s->capacity = capacity;
    }
    if (s->once[number])
        sim_fail("output number %llu of kind %d appears twice", (unsigned long long)number, kind);
    s->once[number] = true;
}

/* A takeover may lose what was acknowledged and not yet released, and what the other side still releases of
 * it may come late: networks do both. But one execution loses and exchanges nothing, and nothing ever comes
 * twice. */
static void check_number(const struct effect *e)
{
    uint64_t *last = &lineages[e->lineage].last_number[e->kind];

    if (e->kind == EFFECT_ANNOUNCE)
        return;
    note_number(e->kind, e->number);
    if (*last && e->number != *last + 1)
        sim_fail(
            "output number %llu of kind %d follows number %llu of the same execution (lineage %u, step %llu)",
            (unsigned long long)e->number, e->kind, (unsigned long long)*last, e->lineage,
            (unsigned long long)e->step);
    *last = e->number;
}

void history_effect(const struct effect *e)
{
    struct lineage *l = &lineages[e->lineage];

    effects++;
    if (!e->lineage || e->lineage > lineage_count)
        sim_fail("output of no known execution (lineage %u)", e->lineage);
    if (ended_lineage)
        sim_fail(
            "output of lineage %u, step %llu after the machine was switched off at step %llu of lineage %u",
            e->lineage, (unsigned long long)e->step, (unsigned long long)ended_step, ended_lineage);
    if (e->step > l->last_effect)
        l->last_effect = e->step;
    check_no_rival(e->lineage);
    check_number(e);
}

void history_ended(uint32_t lineage, uint64_t step)
{
    if (ended_lineage && ended_lineage != lineage && !descends(lineage, ended_lineage) &&
        !descends(ended_lineage, lineage))
        sim_fail("two executions were both switched off: lineages %u and %u", ended_lineage, lineage);
    if (ended_lineage)
        return;
    ended_lineage = lineage;
    ended_step = step;
    if (step > lineages[lineage].last_effect)
        lineages[lineage].last_effect = step;
    check_no_rival(lineage);
}

bool history_has_ended(void)
{
    return ended_lineage;
}

uint32_t history_parent(uint32_t lineage)
{
    return lineages[lineage].parent;
}

bool history_forked(uint32_t lineage)
{
    for (uint32_t i = 1; i <= lineage_count; i++)
        if (lineages[i].parent == lineage)
            return true;
    return false;
}

uint64_t history_takeovers(void)
{
    return takeovers;
}

uint64_t history_boots(void)
{
    return boots;
}

uint64_t history_effects(void)
{
    return effects;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arbiter: who may go on alone when the two sides cannot see each other. The first claim of a generation wins
 * for ever; a repeat of it gets the same answer; there are no timers and no locks that a frozen holder keeps.
 *
 * Kinds: "manual" (the primary is granted, the backup unknown until `failover --peer-is-dead`), "file:DIR" (a
 * record made exclusively and synced), "command:PATH" (environment PERDURE_PAIR, _GENERATION, _SIDE, _VM,
 * _PEER; exit 0 granted, 1 denied, anything else unknown).
 */
#ifndef ENGINE_ARBITER_H
#define ENGINE_ARBITER_H

#include <perdure/error.h>
#include <stdint.h>

enum arbiter_answer { ARBITER_GRANTED, ARBITER_DENIED, ARBITER_UNKNOWN };
enum arbiter_side { ARBITER_PRIMARY, ARBITER_BACKUP };

struct arbiter_claim {
    const char *pair; /* UUID text */
    uint64_t generation;
    enum arbiter_side side;
    const char *vm;   /* name */
    const char *peer; /* address */
    bool permitted;   /* in a swap: the primary has given the backup its permission to run */
    bool returning;   /* a former primary that does not run asks whether it may start again */
    /* Looked at while the claim waits: true, nobody wants the answer any more (UNKNOWN). NULL: never. */
    bool (*given_up)(void *opaque);
    void *opaque;
};

typedef struct Arbiter Arbiter;

struct arbiter_ops {
    /* Waits for the answer, at most until deadline or given_up (then UNKNOWN). UNKNOWN sets errp to why. */
    enum arbiter_answer (*claim)(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp);
    void (*free)(Arbiter *a);
};

struct Arbiter {
    const struct arbiter_ops *ops;
    char kind[1100]; /* as given: "file:/shared/perdure" */
};

/* The simulator only: makes the arbiters of specs that fn knows; NULL with errp untouched passes a spec on to
 * the kinds above. */
typedef Arbiter *arbiter_factory_fn(const char *spec, Error **errp);
void arbiter_set_factory(arbiter_factory_fn *fn);

/* The arbiter that spec names. */
Arbiter *arbiter_new(const char *spec, Error **errp);
enum arbiter_answer arbiter_claim(Arbiter *a, const struct arbiter_claim *c, int64_t deadline, Error **errp);
void arbiter_free(Arbiter *a);

/* For the kinds: has the claim waited long enough? */
bool arbiter_gave_up(const struct arbiter_claim *c, int64_t deadline);
/* Just before an end of this process that waits for nobody: what a claim has started ends too. */
void arbiter_kill_all(void);

#endif

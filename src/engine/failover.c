/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When the two sides cannot see each other: each takes the link down, so that nothing more is said in this
 * generation, and asks the arbiter until it answers.
 */
#include "engine/session.h"
#include "engine/state.h"
#include "base/fault.h"

#include <inttypes.h>
#include <string.h>

#define CLAIM_LIMIT (10 * NS_PER_S) /* a command may need seconds to start */
#define RETRY       (250 * NS_PER_MS)
#define RETRY_LATE  NS_PER_S       /* nobody waits */
#define PATIENCE    (5 * NS_PER_S) /* in a swap, with the guest standing still */

static bool given_up(void *engine)
{
    struct wishes w = engine_wishes(engine);

    return w.quit || w.move_on;
}

static enum arbiter_answer claim(struct session *s, enum arbiter_side side, uint64_t generation,
                                 bool permitted, Error **errp)
{
    struct arbiter_claim c = {
        .pair = s->hello.pair,
        .generation = generation,
        .side = side,
        .vm = s->e->vm,
        .peer = s->peer,
        .permitted = permitted,
        .given_up = given_up,
        .opaque = s->e,
    };

    return arbiter_claim(s->arbiter, &c, clock_now() + CLAIM_LIMIT, errp);
}

static void begin_report(struct session *s, enum arbiter_side side)
{
    char why[256] = "";
    uint64_t epoch;
    int64_t at = clock_now();

    link_reason(&s->link, &at, why, sizeof(why));
    task_lock(&s->e->lock);
    epoch = s->e->epoch;
    s->e->unknowns = 0;
    task_unlock(&s->e->lock);
    report_begin(&s->report, side == ARBITER_PRIMARY ? "the backup was lost" : "the primary was lost", why,
                 at, s->hello.generation, epoch, s->last_ack);
}

/* Takes err, the reason of an unknown answer; whoever waits for the answer tells it to his user. */
static void note_unknown(struct session *s, Error *err)
{
    Engine *e = s->e;
    bool first;

    task_lock(&e->lock);
    first = !e->unknowns;
    task_unlock(&e->lock);
    if (first && err)
        engine_note_error(e, err);
    error_free(err);
    task_lock(&e->lock);
    e->unknowns++;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

static void wait_for_retry(struct session *s)
{
    Engine *e = s->e;
    int64_t until = clock_now() + RETRY;

    task_lock(&e->lock);
    while (!e->wish.quit && !e->wish.vouched && !e->wish.resume && !s->peer_went_on &&
           task_wait_until(&e->changed, &e->lock, until))
        ;
    task_unlock(&e->lock);
}

static bool peer_went_on(struct session *s)
{
    bool yes;

    task_lock(&s->e->lock);
    yes = s->peer_went_on;
    task_unlock(&s->e->lock);
    return yes;
}

/* The user's word counts only while nobody else has said anything. Under one lock: the primary's word, which
 * comes with a new greeting, is either here before the decision or is answered by the side that took over. */
static bool user_decides(struct session *s)
{
    bool yes;

    task_lock(&s->e->lock);
    yes = s->e->wish.vouched && !s->peer_went_on;
    task_unlock(&s->e->lock);
    return yes;
}

enum verdict session_ask(struct session *s, enum arbiter_side side, bool permitted)
{
    begin_report(s, side);
    if (side == ARBITER_PRIMARY && fault_point("engine.go_on_without_asking"))
        return VERDICT_GRANTED;
    for (;;) {
        Error *err = NULL;
        enum arbiter_answer answer;

        if (engine_wishes(s->e).quit)
            return VERDICT_QUIT;
        if (peer_went_on(s)) {
            report_line(&s->report, "arbiter", "%s: not asked again: the primary was granted, and said so",
                        s->arbiter->kind);
            return VERDICT_DENIED;
        }
        answer = claim(s, side, s->hello.generation, permitted, &err);
        if (answer != ARBITER_UNKNOWN) {
            report_line(&s->report, "arbiter", "%s: %s", s->arbiter->kind,
                        answer == ARBITER_GRANTED ? "granted" : "denied");
            error_free(err);
            return answer == ARBITER_GRANTED ? VERDICT_GRANTED : VERDICT_DENIED;
        }
        note_unknown(s, err);
        if (engine_wishes(s->e).resume)
            return VERDICT_THERE;
        if (user_decides(s)) {
            report_line(&s->report, "arbiter",
                        "%s: no answer; the user vouched that the other side does not run", s->arbiter->kind);
            s->vouch.given = true;
            s->vouch.side = side;
            s->vouch.generation = s->hello.generation;
            return VERDICT_VOUCHED;
        }
        wait_for_retry(s);
    }
}

/* An answer that was lost is asked for again: the arbiter may have written the claim down, and then nobody could
 * run if this side gave the generation up and the primary did not hear of it. */
static enum arbiter_answer claim_patiently(struct session *s, Error **errp)
{
    int64_t until = clock_now() + PATIENCE;

    for (;;) {
        Error *err = NULL;
        enum arbiter_answer answer = claim(s, ARBITER_BACKUP, s->hello.generation, true, &err);

        if (answer != ARBITER_UNKNOWN || clock_now() >= until || engine_wishes(s->e).quit) {
            error_propagate(errp, err);
            return answer;
        }
        error_free(err);
        /* The user's word, which ends other waits, decides nothing here. */
        task_sleep_until(clock_now() + RETRY);
    }
}

bool session_claim_permitted(struct session *s, Error **errp)
{
    Error *err = NULL;

    switch (claim_patiently(s, &err)) {
    case ARBITER_GRANTED:
        report_line(&s->report, "arbiter", "%s: granted", s->arbiter->kind);
        return true;
    case ARBITER_DENIED:
        error_setg(errp, "arbiter %s denied generation %" PRIu64 " to the backup", s->arbiter->kind,
                   s->hello.generation);
        return false;
    default:
        error_prepend(&err, "arbiter %s did not answer: ", s->arbiter->kind);
        error_propagate(errp, err);
        return false;
    }
}

void session_remember_grant(struct session *s, uint64_t generation)
{
    Engine *e = s->e;

    task_lock(&e->lock);
    memcpy(e->went_on_pair, s->hello.pair, sizeof(e->went_on_pair));
    e->went_on_generation = generation;
    task_unlock(&e->lock);
}

/* --- after the user's word --- */

static void set_asks_on(Engine *e, bool on)
{
    task_lock(&e->lock);
    e->asks_on = on;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

/* false: nobody wants the answer any more. */
static bool rest(Engine *e, int64_t ns)
{
    int64_t until = clock_now() + ns;
    bool on;

    task_lock(&e->lock);
    while (!e->wish.quit && !e->wish.move_on && task_wait_until(&e->changed, &e->lock, until))
        ;
    on = !e->wish.quit && !e->wish.move_on;
    task_unlock(&e->lock);
    return on;
}

/* Both sides were let run: nothing more of this one may be seen. Its gates are open, only the pause does it.
 */
static void fence(struct session *s)
{
    Engine *e = s->e;
    Error *err = NULL;

    while (!e->guest->ops->pause(e->guest, &err)) {
        engine_note_trouble(e, err);
        error_free(err);
        err = NULL;
        if (!rest(e, RETRY))
            return;
    }
    session_hold_disks(s, GUEST_DISKS_LEFT, NULL);
    session_try_mark_disks(s, GUEST_DISKS_SUPERSEDED);
    report_line(&s->report, "arbiter", "%s: denied after all: the other side was granted", s->arbiter->kind);
    report_note(&s->report, "output",
                "what left since the user vouched cannot be called back; the guest stands still");
    engine_set_report(e, s->report.text);
    engine_set_state(e, ENGINE_PRIMARY, ENGINE_FENCED,
                     "the arbiter denied: the other side was granted, whatever the user vouched");
}

/* The arbiter says what the user said. */
static void settle(struct session *s)
{
    session_try_mark_disks(s, GUEST_DISKS_CLEAN);
    report_line(&s->report, "arbiter", "%s: granted now", s->arbiter->kind);
    engine_set_report(s->e, s->report.text);
    if (s->vouch.side == ARBITER_PRIMARY)
        session_remember_grant(s, s->vouch.generation);
}

/* permitted: the user gave this side the permission, so the `manual` arbiter grants it. */
static enum arbiter_answer ask_again(struct session *s)
{
    return claim(s, s->vouch.side, s->vouch.generation, s->vouch.side == ARBITER_BACKUP, NULL);
}

void session_ask_on(struct session *s)
{
    enum arbiter_answer answer;

    set_asks_on(s->e, true);
    do
        answer = ask_again(s);
    while (answer == ARBITER_UNKNOWN && rest(s->e, RETRY_LATE));
    if (answer == ARBITER_DENIED)
        fence(s);
    else if (answer == ARBITER_GRANTED)
        settle(s);
    set_asks_on(s->e, false);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the user asks for. protect makes the connections itself, in the caller's task, and then leaves
 * everything to a session; the others leave a wish and wait for what the session makes of it.
 */
#include "engine/session.h"
#include "engine/state.h"
#include "base/random.h"

#include <stdio.h>
#include <string.h>

#define CONFIG_LIMIT          (60 * NS_PER_S)
#define MIGRATE_BANDWIDTH_MIN (64u << 10)

/* --- protect --- */

static bool check_params(const struct engine_params *p, Error **errp)
{
    if (p->interval_ns < 100 * NS_PER_US || p->interval_ns > 60 * NS_PER_S)
        error_setg(errp, "--interval must be between 100us and 60s");
    else if (p->min_epoch_ns < 10 * NS_PER_US || p->min_epoch_ns > p->interval_ns)
        error_setg(errp, "--min-epoch must be between 10us and the interval");
    else if (p->timeout_ns < 20 * NS_PER_MS || p->timeout_ns > 600 * NS_PER_S)
        error_setg(errp, "--timeout must be between 20ms and 600s");
    else
        return true;
    return false;
}

/* A new pair for every protection: what the arbiter once decided about an old one can never matter to it. */
static void make_hello(Engine *e, const struct engine_params *p, struct wire_hello *h)
{
    *h = (struct wire_hello){
        .generation = e->generation + !e->generation,
        .timeout_ns = p->timeout_ns,
        .interval_ns = p->interval_ns,
        .min_epoch_ns = p->min_epoch_ns,
        .verify_every = p->verify_every,
        .delta = p->delta,
        .ram_size = e->guest->memory->size,
    };
    task_lock(&e->lock);
    memcpy(h->went_on_pair, e->went_on_pair, sizeof(h->went_on_pair));
    h->went_on_generation = e->went_on_generation;
    task_unlock(&e->lock);
    snprintf(h->vm, sizeof(h->vm), "%s", e->vm);
    snprintf(h->arbiter, sizeof(h->arbiter), "%s", p->arbiter);
    uuid_random(h->pair);
    random_bytes(&h->session, sizeof(h->session));
}

static struct session *connect_main(Engine *e, const struct engine_params *p,
                                    const struct engine_migrate_params *migrate, enum wire_kind kind,
                                    Error **errp)
{
    struct wire_hello hello;
    struct session *s;

    make_hello(e, p, &hello);
    hello.kind = kind;
    hello.lanes = migrate ? (uint8_t)(migrate->channels - 1) : 0;
    hello.postcopy = migrate && (migrate->postcopy || migrate->on_slow == ENGINE_SLOW_POSTCOPY);
    s = session_connect(e, p->to, &hello, errp);
    if (s && migrate)
        s->migrate = *migrate;
    return s;
}

static bool offer_config(struct session *s, Error **errp)
{
    bool ok;

    session_set_limit(s, CONFIG_LIMIT);
    ok = session_send_config(s->in, s->out, s->e->guest, errp);
    session_set_limit(s, TIME_NEVER);
    return ok;
}

static void take_params(Engine *e, const struct session *s, bool migrate)
{
    task_lock(&e->lock);
    memcpy(e->pair, s->hello.pair, sizeof(e->pair));
    e->generation = s->hello.generation;
    e->epoch = 0;
    snprintf(e->peer, sizeof(e->peer), "%s", s->peer);
    snprintf(e->arbiter, sizeof(e->arbiter), "%s", s->hello.arbiter);
    e->interval_ns = s->hello.interval_ns;
    memset(&e->figures, 0, sizeof(e->figures));
    e->migration = (struct engine_migration){0};
    if (migrate) {
        e->migration = (struct engine_migration){.outcome = ENGINE_MIGRATION_SETUP, .began = clock_now()};
        e->migrate_now = s->migrate;
    }
    e->wish = (struct wishes){.quit = e->wish.quit};
    e->may_end_in_postcopy = s->hello.postcopy;
    e->serves = false;
    e->recover_to[0] = 0;
    e->guest_asks = false;
    e->unknowns = 0;
    e->last_error[0] = 0;
    task_unlock(&e->lock);
}

/* The last session may still ask for the answer that the user's word stood in for: a new protection, once it
 * is accepted, ends that. */
static bool end_asking(Engine *e, Error **errp)
{
    enum engine_state state;

    task_lock(&e->lock);
    e->wish.move_on = true;
    task_broadcast(&e->changed);
    while (e->session && !e->session_ended)
        task_wait(&e->changed, &e->lock);
    e->wish.move_on = false;
    state = e->state;
    task_unlock(&e->lock);
    engine_reap_session(e);
    if (state == ENGINE_UNPROTECTED)
        return true;
    error_setg(errp, "'%s' is %s now: the arbiter gave the guest to the other side", e->vm,
               engine_state_name(state));
    return false;
}

/* migrate NULL: to protect it. */
static bool begin(Engine *e, const struct engine_params *p, const struct engine_migrate_params *migrate,
                  Error **errp)
{
    struct session *s = connect_main(e, p, migrate, migrate ? WIRE_KIND_MIGRATE : WIRE_KIND_MAIN, errp);

    if (!s)
        return false;
    if (!session_connect_others(s, errp) || !offer_config(s, errp)) {
        session_free(s);
        return false;
    }
    if (!end_asking(e, errp)) {
        session_free(s);
        return false;
    }
    take_params(e, s, migrate);
    engine_set_state(e, ENGINE_PRIMARY, migrate ? ENGINE_MIGRATING : ENGINE_SYNCING,
                     migrate ? "the destination accepted the configuration"
                             : "the backup accepted the configuration");
    if (engine_start_session(e, s, errp))
        return true;
    engine_set_state(e, ENGINE_PRIMARY, ENGINE_UNPROTECTED, "no task could be started");
    return false;
}

static bool try_only(Engine *e, const struct engine_params *p, Error **errp)
{
    struct session *s = connect_main(e, p, NULL, WIRE_KIND_CHECK, errp);
    bool ok = s && offer_config(s, errp);

    session_free(s);
    return ok;
}

/* Waits for the last session to be quite over, or to do no more than ask on: the state says so a moment
 * before. After a swap it is not over but goes on with the roles changed. */
static bool begin_busy(Engine *e, Error **errp)
{
    bool ok = false;

    task_lock(&e->lock);
    while (e->role == ENGINE_PRIMARY && e->state == ENGINE_UNPROTECTED && e->session && !e->session_ended &&
           !e->asks_on)
        task_wait(&e->changed, &e->lock);
    if (e->wish.quit)
        error_setg(errp, "'%s' ends", e->vm);
    else if (e->role != ENGINE_PRIMARY)
        error_setg(errp, "'%s' is a standby (%s): protect the primary", e->vm, engine_state_name(e->state));
    else if (e->state != ENGINE_UNPROTECTED || e->busy)
        error_setg(errp, "'%s' is %s already", e->vm,
                   e->busy ? "being protected or migrated" : engine_state_name(e->state));
    else
        ok = e->busy = true;
    task_unlock(&e->lock);
    return ok;
}

static void end_busy(Engine *e)
{
    task_lock(&e->lock);
    e->busy = false;
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
}

bool engine_protect(Engine *e, const struct engine_params *p, bool check_only, Error **errp)
{
    bool ok;

    if (!check_params(p, errp) || !begin_busy(e, errp))
        return false;
    ok = session_may_protect(e->guest, errp) && (check_only ? try_only(e, p, errp) : begin(e, p, NULL, errp));
    end_busy(e);
    return ok;
}

/* --- migrate --- */

static bool check_migrate_params(const struct engine_migrate_params *p, Error **errp)
{
    if (p->downtime_ns < 0 || p->downtime_ns > 600 * NS_PER_S)
        error_setg(errp, "--downtime must be at most 600s");
    else if (p->deadline_ns && (p->deadline_ns < 100 * NS_PER_MS || p->deadline_ns > 7 * 86400 * NS_PER_S))
        error_setg(errp, "--deadline must be between 100ms and a week");
    else if (p->max_bandwidth && p->max_bandwidth < MIGRATE_BANDWIDTH_MIN)
        error_setg(errp, "--max-bandwidth must be 0 (no cap) or at least 64K a second");
    else if (p->channels < 1 || p->channels > ENGINE_CHANNELS_MAX)
        error_setg(errp, "--channels must be between 1 and %u", ENGINE_CHANNELS_MAX);
    else
        return true;
    return false;
}

bool engine_migrate(Engine *e, const struct engine_migrate_params *m, Error **errp)
{
    struct engine_params p;
    bool ok;

    engine_params_default(&p);
    snprintf(p.to, sizeof(p.to), "%s", m->to);
    snprintf(p.arbiter, sizeof(p.arbiter), "%s", m->arbiter);
    p.timeout_ns = m->timeout_ns;
    if (!check_migrate_params(m, errp) || !check_params(&p, errp) || !begin_busy(e, errp))
        return false;
    ok = begin(e, &p, m, errp);
    end_busy(e);
    return ok;
}

static bool migrates_locked(const Engine *e)
{
    return e->role == ENGINE_PRIMARY && e->state == ENGINE_MIGRATING;
}

bool engine_migrate_set(Engine *e, const struct engine_migrate_change *c, Error **errp)
{
    struct engine_migrate_params next;
    bool ok;

    task_lock(&e->lock);
    next = e->migrate_next;
    engine_migrate_params_change(&next, c);
    ok = check_migrate_params(&next, errp);
    if (ok && migrates_locked(e) && c->on_slow == ENGINE_SLOW_POSTCOPY && !e->may_end_in_postcopy) {
        error_setg(errp,
                   "this migration did not begin so that it could end in postcopy (--on-slow postcopy)");
        ok = false;
    }
    if (ok)
        e->migrate_next = next;
    if (ok && migrates_locked(e))
        engine_migrate_params_change(&e->migrate_now, c);
    task_broadcast(&e->changed);
    task_unlock(&e->lock);
    return ok;
}

void engine_migrate_get(Engine *e, struct engine_migrate_params *ret_params)
{
    task_lock(&e->lock);
    *ret_params = migrates_locked(e) ? e->migrate_now : e->migrate_next;
    task_unlock(&e->lock);
}

/* --- the backup moves --- */

static bool may_move_backup_locked(const Engine *e)
{
    enum engine_migration_outcome outcome = e->migration.outcome;

    return !e->wish.move && outcome != ENGINE_MIGRATION_SETUP && outcome != ENGINE_MIGRATION_ACTIVE &&
           e->state == (e->role == ENGINE_PRIMARY ? ENGINE_PROTECTED : ENGINE_STANDBY);
}

/* The backup's session knows whether it gets there; one that has lost the primary has other things to ask. */
static bool move_locked(Engine *e, const char *to, Error **errp)
{
    bool primary = e->role == ENGINE_PRIMARY;

    e->migration = (struct engine_migration){.outcome = ENGINE_MIGRATION_SETUP, .began = clock_now()};
    snprintf(e->move_to, sizeof(e->move_to), "%s", to);
    e->last_error[0] = 0;
    e->wish.move = true;
    task_broadcast(&e->changed);
    while (!primary && e->state == ENGINE_STANDBY && e->migration.outcome == ENGINE_MIGRATION_SETUP &&
           !e->wish.quit)
        task_wait(&e->changed, &e->lock);
    if (primary || e->migration.outcome == ENGINE_MIGRATION_ACTIVE ||
        e->migration.outcome == ENGINE_MIGRATION_COMPLETED)
        return true;
    e->wish.move = false;
    e->migration.outcome = ENGINE_MIGRATION_FAILED;
    error_setg(errp, "%s",
               e->last_error[0] ? e->last_error : "protection ended before the backup could move");
    return false;
}

bool engine_move_backup(Engine *e, const char *to, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    if (strlen(to) >= sizeof(e->move_to)) {
        error_setg(errp, "the address has more than %zu octets", sizeof(e->move_to) - 1);
        ok = false;
    } else if (!may_move_backup_locked(e)) {
        error_setg(errp,
                   "the backup of '%s' cannot be moved now: this side is %s, %s (a PROTECTED primary, or a "
                   "backup in "
                   "STANDBY, that is not being moved already)",
                   e->vm, engine_role_name(e->role), engine_state_name(e->state));
        ok = false;
    } else {
        ok = move_locked(e, to, errp);
    }
    task_unlock(&e->lock);
    return ok;
}

static bool moves_locked(const Engine *e)
{
    return e->role == ENGINE_BACKUP && e->migration.outcome == ENGINE_MIGRATION_ACTIVE &&
           e->state == ENGINE_STANDBY;
}

/* It may be too late. */
static bool stay_locked(Engine *e, Error **errp)
{
    e->wish.stay = true;
    task_broadcast(&e->changed);
    while (moves_locked(e) && e->session && !e->session_ended && !e->wish.quit)
        task_wait(&e->changed, &e->lock);
    e->wish.stay = false;
    if (e->migration.outcome != ENGINE_MIGRATION_COMPLETED)
        return true;
    error_setg(errp, "the backup has moved already");
    return false;
}

/* --- the others; lock held where the name says so --- */

/* Not the one after it, which may begin before a request that waits has woken up. */
static bool session_is_on_locked(const Engine *e, uint64_t number)
{
    return e->session && !e->session_ended && e->session_number == number;
}

static bool refuse_locked(const Engine *e, const char *what, Error **errp)
{
    error_setg(errp, "'%s' cannot be %s: it is %s, %s", e->vm, what, engine_role_name(e->role),
               engine_state_name(e->state));
    return false;
}

/* Several users may ask for the same at once: a wish stays until the last of them has his answer. */
static void wish_begin(bool *wish, unsigned *wishers, bool mine)
{
    *wishers += mine;
    *wish |= mine;
}

static void wish_end(bool *wish, unsigned *wishers, bool mine)
{
    *wishers -= mine;
    *wish = *wishers > 0;
}

/* command: what the user called, and would call again. */
static bool end_session_locked(Engine *e, const char *command, bool force, Error **errp)
{
    uint64_t number = e->session_number;

    wish_begin(&e->wish.unprotect, &e->wishers.unprotect, true);
    wish_begin(&e->wish.vouched, &e->wishers.vouched, force);
    task_broadcast(&e->changed);
    while (e->role == ENGINE_PRIMARY && session_is_on_locked(e, number) && !e->asks_on && !e->serves &&
           !(e->state == ENGINE_ASKING && !force && e->unknowns))
        task_wait(&e->changed, &e->lock);
    wish_end(&e->wish.unprotect, &e->wishers.unprotect, true);
    wish_end(&e->wish.vouched, &e->wishers.vouched, force);
    if (e->state == ENGINE_UNPROTECTED || e->session_number != number) /* over, and protected anew */
        return true;
    if (e->wish.quit)
        error_setg(errp, "'%s' ends", e->vm);
    else if (e->state == ENGINE_ASKING)
        error_setg(
            errp,
            "the other side does not answer, and arbiter %s neither (%s); if you are sure that the guest "
            "does "
            "not run there: %s --force (should the arbiter then say that it does, the guest stops here)",
            e->arbiter, e->last_error, command);
    else
        error_setg(errp, "'%s' is %s now: the other side runs the guest", e->vm, engine_state_name(e->state));
    return false;
}

bool engine_unprotect(Engine *e, bool force, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    if (e->role != ENGINE_PRIMARY || e->state == ENGINE_UNPROTECTED || e->state == ENGINE_FENCED ||
        e->state == ENGINE_MIGRATING || e->state == ENGINE_MIGRATED || e->state == ENGINE_POSTCOPY ||
        e->state == ENGINE_POSTCOPY_PAUSED)
        ok = refuse_locked(e, "unprotected", errp);
    else
        ok = end_session_locked(e, "unprotect", force, errp);
    task_unlock(&e->lock);
    return ok;
}

bool engine_migrate_cancel(Engine *e, bool force, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    if (e->role == ENGINE_PRIMARY && (e->state == ENGINE_POSTCOPY || e->state == ENGINE_POSTCOPY_PAUSED)) {
        error_setg(errp, "'%s' runs at the destination already, and part of its memory is there only", e->vm);
        ok = false;
    } else if (moves_locked(e))
        ok = stay_locked(e, errp);
    else if (e->role != ENGINE_PRIMARY || (e->state != ENGINE_MIGRATING && e->state != ENGINE_ASKING))
        ok = refuse_locked(e, "kept here", errp);
    else
        ok = end_session_locked(e, "migrate-cancel", force, errp);
    task_unlock(&e->lock);
    return ok;
}

/* Not the destination of one. */
static bool is_source_locked(const Engine *e)
{
    return e->role == ENGINE_PRIMARY && e->serves;
}

bool engine_migrate_pause(Engine *e, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    ok = is_source_locked(e) && e->state == ENGINE_POSTCOPY;
    if (!ok)
        refuse_locked(e, "paused (only a migration in postcopy, at its source)", errp);
    else
        e->wish.hold = true;
    task_unlock(&e->lock);
    if (ok)
        engine_take_link_down(e, "paused by the user");
    return ok;
}

/* One that is under way when it is asked for does not count: it may go to another address. */
static bool recover_locked(Engine *e, const char *to, Error **errp)
{
    uint64_t number = e->session_number, resumed = e->migration.resumed;
    uint64_t until = e->attempts + 1 + e->attempting;

    snprintf(e->recover_to, sizeof(e->recover_to), "%s", to ? to : "");
    e->wish.resume = true;
    task_broadcast(&e->changed);
    while (session_is_on_locked(e, number) && e->attempts < until && e->migration.resumed == resumed &&
           (e->state == ENGINE_ASKING || e->serves) && !e->wish.quit)
        task_wait(&e->changed, &e->lock);
    if (e->migration.resumed > resumed || e->state == ENGINE_MIGRATED)
        return true;
    error_setg(errp, "the migration cannot go on yet: %s", e->last_error);
    return false;
}

static bool may_recover_locked(const Engine *e)
{
    return e->role == ENGINE_PRIMARY && ((e->serves && e->state == ENGINE_POSTCOPY_PAUSED) ||
                                         (e->state == ENGINE_ASKING && e->may_end_in_postcopy));
}

bool engine_migrate_recover(Engine *e, const char *to, Error **errp)
{
    bool ok = false;

    task_lock(&e->lock);
    if (e->role == ENGINE_PRIMARY && e->state == ENGINE_POSTCOPY_PAUSED && !e->serves)
        error_setg(errp, "'%s' waits for its source: migrate-recover belongs there", e->vm);
    else if (may_recover_locked(e))
        ok = recover_locked(e, to, errp);
    else
        refuse_locked(e, "recovered", errp);
    task_unlock(&e->lock);
    return ok;
}

static bool swap_locked(Engine *e, bool leave, Error **errp)
{
    uint64_t number = e->session_number;

    e->wish.swap = true;
    e->wish.leave |= leave;
    task_broadcast(&e->changed);
    while (session_is_on_locked(e, number) && (e->wish.swap || leave) &&
           !(e->state == ENGINE_ASKING && e->unknowns))
        task_wait(&e->changed, &e->lock);
    e->wish.swap = e->wish.leave = false;
    if (e->role == ENGINE_BACKUP)
        return true;
    error_setg(errp, "the roles were not changed: %s", e->last_error);
    return false;
}

bool engine_swap(Engine *e, bool leave, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    if (e->role != ENGINE_PRIMARY || e->state != ENGINE_PROTECTED)
        ok = refuse_locked(e, "swapped", errp);
    else
        ok = swap_locked(e, leave, errp);
    task_unlock(&e->lock);
    return ok;
}

static bool failover_locked(Engine *e, bool peer_is_dead, Error **errp)
{
    uint64_t number = e->session_number;

    wish_begin(&e->wish.handover, &e->wishers.handover, true);
    wish_begin(&e->wish.vouched, &e->wishers.vouched, peer_is_dead);
    task_broadcast(&e->changed);
    while (e->role == ENGINE_BACKUP && session_is_on_locked(e, number) &&
           !(e->state == ENGINE_ASKING && !peer_is_dead && e->unknowns))
        task_wait(&e->changed, &e->lock);
    wish_end(&e->wish.handover, &e->wishers.handover, true);
    wish_end(&e->wish.vouched, &e->wishers.vouched, peer_is_dead);
    if (e->role == ENGINE_PRIMARY)
        return true;
    if (e->state == ENGINE_ASKING)
        error_setg(errp,
                   "the primary does not answer, and arbiter %s cannot say whether it lives (%s); if you are "
                   "sure that "
                   "it is dead: failover --peer-is-dead",
                   e->arbiter, e->last_error);
    else
        error_setg(errp, "this side did not take over: %s", e->last_error);
    return false;
}

bool engine_failover(Engine *e, bool peer_is_dead, Error **errp)
{
    bool ok;

    task_lock(&e->lock);
    if (e->role != ENGINE_BACKUP || (e->state != ENGINE_STANDBY && e->state != ENGINE_ASKING))
        ok = refuse_locked(e, "failed over", errp);
    else
        ok = failover_locked(e, peer_is_dead, errp);
    task_unlock(&e->lock);
    return ok;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For test_hostile_migration.c and test_hostile_sections.c: a recorded migration, taken apart, and what must be true of
 * a destination whatever it is offered.
 *
 *     struct records *rs = change();
 *
 *     records_remove(rs, find(WIRE_START));
 *     refused_records(rs, "came after epoch", "without START", 0);
 */
#ifndef TESTS_HOSTILE_FIXTURE_H
#define TESTS_HOSTILE_FIXTURE_H

#include "../fuzz/stream_records.h"

#include "base/endian.h"
#include <perdure/savevm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct rig_recording good;
static struct records parts; /* of good, behind the greeting */

static inline const uint8_t *stream(void)
{
    return good.main.data + good.greeting;
}

static inline size_t stream_size(void)
{
    return good.main.size - good.greeting;
}

/* --- what must be true of any stream --- */

/* A peer may end it in order, which is no error. */
static inline bool ended_in_order(const struct rig_result *r)
{
    return r->answers[WIRE_GOODBYE_OK];
}

static inline void check_result(const struct rig_result *r, const char *what, size_t where)
{
    bool ok = r->ran ? r->role == ENGINE_PRIMARY && r->state == ENGINE_UNPROTECTED && r->claims == 1 &&
                           r->answers[WIRE_RUNNING] == 1
                     : r->role == ENGINE_BACKUP && r->state == ENGINE_LISTENING && !r->claims &&
                           !r->answers[WIRE_RUNNING] && (r->error[0] || ended_in_order(r));

    if (!ok)
        fail_msg("%s at %zu: %s, %s, %s, %u claims, error '%s'", what, where, engine_role_name(r->role),
                 engine_state_name(r->state), r->ran ? "ran" : "did not run", r->claims, r->error);
}

/* It runs, and is the machine that was recorded. */
static inline void check_same(const struct rig_result *r, const char *what, size_t where)
{
    if (!r->ran || r->memory_hash != good.memory_hash || r->disk_hash != good.disk_hash ||
        r->device_hash != good.device_hash)
        fail_msg("%s at %zu: the migration after it: %s '%s'", what, where, r->ran ? "ran" : "did not run",
                 r->error);
}

/* It is as if nothing had been. */
static inline void check_good(const struct rig_result *r, const char *what, size_t where)
{
    check_result(r, what, where);
    check_same(r, what, where);
}

/* One that must not run, whose error has this in it. again: with a good one after it. */
static inline void refused(const void *data, size_t size, const char *why, bool again, const char *what,
                           size_t where)
{
    struct rig_result r, after;

    rig_offer(&good, data, size, false, &r, again ? &after : NULL);
    check_result(&r, what, where);
    if (r.ran || !strstr(r.error, why))
        fail_msg("%s at %zu: %s, '%s' is not in '%s'", what, where, r.ran ? "ran" : "refused", why, r.error);
    if (again)
        check_good(&after, what, where);
}

/* One that may also be taken for what it is. */
static inline void bearable(const void *data, size_t size, const char *what, size_t where)
{
    struct rig_result r;

    rig_offer(&good, data, size, false, &r, NULL);
    check_result(&r, what, where);
}

static inline void refused_records(const struct records *rs, const char *why, const char *what, size_t where)
{
    struct rig_bytes b = records_join(rs);

    refused(b.data, b.size, why, true, what, where);
    free(b.data);
}

static inline void bearable_records(const struct records *rs, const char *what, size_t where)
{
    struct rig_bytes b = records_join(rs);

    bearable(b.data, b.size, what, where);
    free(b.data);
}

/* --- the parts of the recording --- */

static inline unsigned find(uint16_t type)
{
    unsigned i = 0;

    while (i < parts.count && parts.r[i].type != type)
        i++;
    if (i == parts.count)
        fail_msg("the recording has no record of type 0x%x", type);
    return i;
}

static inline unsigned find_last(uint16_t type)
{
    unsigned i = parts.count;

    while (i && parts.r[i - 1].type != type)
        i--;
    assert_true(i > 0);
    return i - 1;
}

/* A changed copy of the recording, for one case. */
static struct records changed;

static inline struct records *change(void)
{
    records_free(&changed);
    records_copy(&changed, &parts);
    return &changed;
}

/* Only the record i, replaced. */
static inline void with_body(unsigned i, const void *body, size_t size, const char *why, const char *what)
{
    struct records *rs = change();
    uint16_t type = rs->r[i].type;
    uint64_t id = rs->r[i].id;

    records_remove(rs, i);
    records_insert(rs, i, type, id, body, size);
    refused_records(rs, why, what, i);
}

/* --- the whole of a test program --- */

static inline int hostile_main(const struct CMUnitTest *tests, size_t count)
{
    int failed;

    rig_init();
    rig_record(&good);
    records_split(&parts, stream(), stream_size());
    failed = _cmocka_run_group_tests("hostile", tests, count, NULL, NULL);
    records_free(&parts);
    records_free(&changed);
    rig_forget(&good);
    return failed;
}

#endif

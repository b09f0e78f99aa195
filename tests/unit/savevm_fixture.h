/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fake components for the tests of the savevm walks. */
#ifndef UNIT_SAVEVM_FIXTURE_H
#define UNIT_SAVEVM_FIXTURE_H

#include "registry/context.h"
#include "registry/savevm_list.h"
#include <perdure/savevm.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/*
 * Fake components note every call: "a.setup", "b.iter", ...; each writes and expects a byte or two of its
 * own. What a call answers is in struct part.
 */
struct part {
    const char *name;
    uint8_t value, loaded;
    int versions[4], version_count; /* that load_state was given */
    int passes;                     /* iterate answers 0 that many times, then 1 */
    int setup_status, iterate_status, complete_status, load_status, load_setup_status, load_cleanup_status,
        resume_status;
    bool inactive, postcopy, not_iterated, breaks_stream;
    uint64_t pending[3];
};

static char calls[2048];

static void note(struct part *p, const char *what)
{
    size_t n = strlen(calls);

    snprintf(calls + n, sizeof(calls) - n, "%s%s.%s", n ? " " : "", p->name, what);
}

static void assert_calls(const char *expected)
{
    assert_string_equal(calls, expected);
    calls[0] = 0;
}

static void assert_error(Error *err, const char *expected)
{
    assert_non_null(err);
    assert_string_equal(error_get_pretty(err), expected);
    error_free(err);
}

static void put(struct part *p, VMStream *f, const char *what)
{
    note(p, what);
    perdure_stream_put_u8(f, p->value);
    if (p->breaks_stream)
        perdure_stream_set_error(f, -EIO, "%s broke", p->name);
}

static void p_save_state(VMStream *f, void *opaque)
{
    put(opaque, f, "state");
}

static int p_save_setup(VMStream *f, void *opaque)
{
    put(opaque, f, "setup");
    return ((struct part *)opaque)->setup_status;
}

static int p_iterate(VMStream *f, void *opaque)
{
    struct part *p = opaque;

    put(p, f, "iter");
    if (p->iterate_status < 0)
        return p->iterate_status;
    return p->passes-- <= 0;
}

static int p_complete_precopy(VMStream *f, void *opaque)
{
    put(opaque, f, "pre");
    return ((struct part *)opaque)->complete_status;
}

static int p_complete_postcopy(VMStream *f, void *opaque)
{
    put(opaque, f, "post");
    return ((struct part *)opaque)->complete_status;
}

static void p_save_cleanup(void *opaque)
{
    note(opaque, "clean");
}

static bool p_is_active(void *opaque)
{
    return !((struct part *)opaque)->inactive;
}

static bool p_has_postcopy(void *opaque)
{
    return ((struct part *)opaque)->postcopy;
}

static bool p_is_active_iterate(void *opaque)
{
    return !((struct part *)opaque)->not_iterated;
}

static void p_pending(VMStream *f, void *opaque, uint64_t threshold, uint64_t *precopy_only,
                      uint64_t *compatible, uint64_t *postcopy_only)
{
    struct part *p = opaque;

    (void)f;
    assert_int_equal(threshold, 42);
    *precopy_only += p->pending[0];
    *compatible += p->pending[1];
    *postcopy_only += p->pending[2];
}

static int p_load_setup(VMStream *f, void *opaque)
{
    (void)f;
    note(opaque, "lsetup");
    return ((struct part *)opaque)->load_setup_status;
}

static int p_load_state(VMStream *f, void *opaque, int version)
{
    struct part *p = opaque;

    note(p, "load");
    p->loaded = perdure_stream_get_u8(f);
    p->versions[p->version_count++ & 3] = version;
    return p->load_status;
}

static int p_load_cleanup(void *opaque)
{
    note(opaque, "lclean");
    return ((struct part *)opaque)->load_cleanup_status;
}

static int p_resume(struct MigrationState *s, void *opaque)
{
    assert_ptr_equal(s, calls);
    note(opaque, "resume");
    return ((struct part *)opaque)->resume_status;
}

static const SaveVMHandlers live_ops = {
    .save_setup = p_save_setup,
    .save_live_iterate = p_iterate,
    .save_live_complete_precopy = p_complete_precopy,
    .save_live_complete_postcopy = p_complete_postcopy,
    .save_live_pending = p_pending,
    .save_cleanup = p_save_cleanup,
    .is_active = p_is_active,
    .has_postcopy = p_has_postcopy,
    .is_active_iterate = p_is_active_iterate,
    .load_setup = p_load_setup,
    .load_state = p_load_state,
    .load_cleanup = p_load_cleanup,
    .resume_prepare = p_resume,
};
static const SaveVMHandlers device_ops = {.save_state = p_save_state, .load_state = p_load_state};

/* a and b are live, d and e devices; registered in the order d a e b. */
static struct part a, b, d, e;
static VMStream *out;

static int begin(void **state)
{
    (void)state;
    calls[0] = 0;
    a = (struct part){.name = "a", .value = 10};
    b = (struct part){.name = "b", .value = 11};
    d = (struct part){.name = "d", .value = 12};
    e = (struct part){.name = "e", .value = 13};
    out = perdure_stream_open_memory(4096);
    assert_int_equal(register_savevm_live("d", -1, 2, &device_ops, &d), 0);
    assert_int_equal(register_savevm_live("a", -1, 5, &live_ops, &a), 0);
    assert_int_equal(register_savevm_live("e", 7, 1, &device_ops, &e), 0);
    assert_int_equal(register_savevm_live("b", -1, 3, &live_ops, &b), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unregister_savevm(NULL, "a", &a);
    unregister_savevm(NULL, "b", &b);
    unregister_savevm(NULL, "d", &d);
    unregister_savevm(NULL, "e", &e);
    assert_null(savevm_first());
    assert_int_equal(registry_context_current()->savevm.walks, 0);
    perdure_stream_close(out);
    return 0;
}

#endif

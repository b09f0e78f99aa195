/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between pause and resume an epoch allocates nothing: unit.mk puts functions that count in the place of
 * malloc and its kin. */
#include "fake_world.h"

#include <perdure/vmstate.h>

static __thread bool in_pause; /* of an epoch, on the thread that paused */
static int watching, pauses_seen, allocations_seen;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);

static void note_allocation(void)
{
    if (in_pause)
        __atomic_fetch_add(&allocations_seen, 1, __ATOMIC_RELAXED);
}

void *__wrap_malloc(size_t size)
{
    note_allocation();
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    note_allocation();
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    note_allocation();
    return __real_realloc(p, size);
}

static bool watched_pause(Guest *g, Error **errp)
{
    bool ok = fake_pause(g, errp);

    in_pause = ok && __atomic_load_n(&watching, __ATOMIC_ACQUIRE);
    return ok;
}

static void watched_resume(Guest *g)
{
    if (in_pause)
        __atomic_fetch_add(&pauses_seen, 1, __ATOMIC_RELAXED);
    in_pause = false;
    fake_resume(g);
}

static bool probe_allocates(void *opaque, Error **errp)
{
    (void)errp;
    free(*(void **)opaque);
    *(void **)opaque = malloc(64);
    return true;
}

struct pauses {
    int from, count;
};

static bool paused_often(void *arg)
{
    struct pauses *p = arg;

    return __atomic_load_n(&pauses_seen, __ATOMIC_RELAXED) >= p->from + p->count;
}

static void see_pauses(int count)
{
    struct pauses p = {__atomic_load_n(&pauses_seen, __ATOMIC_RELAXED), count};

    wait_until(paused_often, &p, "pauses");
}

static void test_pause_allocates_nothing(void **state)
{
    static const VMStateField none[] = {VMSTATE_END};
    static const VMStateDescription probe = {
        .name = "probe", .version = 1, .minimum_version = 1, .fields = none, .pre_save = probe_allocates};
    struct guest_ops watched = fake_ops;
    struct world *w = *state;
    void *memory = NULL;

    watched.pause = watched_pause;
    watched.resume = watched_resume;
    w->a.g->guest.ops = &watched;
    protect(w, &w->a);
    __atomic_store_n(&watching, 1, __ATOMIC_RELEASE);
    see_pauses(50);
    __atomic_store_n(&watching, 0, __ATOMIC_RELEASE);
    assert_int_equal(__atomic_load_n(&allocations_seen, __ATOMIC_RELAXED), 0);
    assert_true(engine_unprotect(w->a.e, false, NULL));

    assert_true(perdure_vmstate_register(&probe, 0, &memory, NULL)); /* it would be seen */
    protect(w, &w->a);
    __atomic_store_n(&watching, 1, __ATOMIC_RELEASE);
    see_pauses(2);
    __atomic_store_n(&watching, 0, __ATOMIC_RELEASE);
    assert_true(engine_unprotect(w->a.e, false, NULL));
    assert_true(__atomic_load_n(&allocations_seen, __ATOMIC_RELAXED) >= 2);
    perdure_vmstate_unregister(&probe, &memory);
    free(memory);
    w->a.g->guest.ops = &fake_ops;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pause_allocates_nothing, set_up, tear_down),
    };

    world_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

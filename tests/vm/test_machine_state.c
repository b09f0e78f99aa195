/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dirty log misses nothing, and a state taken in mid-loop goes on in a fresh machine. */
#include "vm.h"

#include "machine/machine_internal.h"
#include "machine/vcpu_msrs.h"

#include "base/task.h"
#include <perdure/savevm.h>

#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define STAGING_PAGES 1024
#define EPOCHS        30

/* A backup's copy of the guest's RAM. */
struct mirror {
    GuestMemory *memory;
    uint8_t *pages;
    Staging *staging;
    uint64_t collected;
};

static void mirror_init(struct mirror *c, Machine *m)
{
    Error *err = NULL;

    *c = (struct mirror){.memory = machine_guest(m)->memory};
    c->pages = calloc(c->memory->page_count, GUEST_PAGE_SIZE);
    assert_non_null(c->pages);
    c->staging = staging_new(STAGING_PAGES, &err);
    VM_OK(c->staging != NULL);
}

static void mirror_destroy(struct mirror *c)
{
    staging_free(c->staging);
    free(c->pages);
}

/* Everything that changed, in as many steps as the staging area needs. */
static void mirror_collect(struct mirror *c, Machine *m, bool live)
{
    Guest *g = machine_guest(m);
    Error *err = NULL;
    bool more;

    do {
        VM_OK(g->ops->collect(g, c->staging, live, &more, &err));
        for (size_t i = 0; i < staging_count(c->staging); i++)
            memcpy(c->pages + staging_page(c->staging, i) * GUEST_PAGE_SIZE, staging_data(c->staging, i),
                   GUEST_PAGE_SIZE);
        c->collected += staging_count(c->staging);
        staging_reset(c->staging);
    } while (more);
}

static uint64_t mirror_differences(const struct mirror *c)
{
    uint64_t n = 0;

    for (uint64_t p = 0; p < c->memory->page_count; p++)
        n += memcmp(c->pages + p * GUEST_PAGE_SIZE, guest_memory_page_host(c->memory, p), GUEST_PAGE_SIZE) !=
             0;
    return n;
}

static int compare_counts(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Epochs of a running guest: after each the mirror is the RAM, byte by byte, and in most of them few pages
 * came in vain (in a long one a byte may go round 256 times, and its page looks as if nobody had written it).
 * Returns the most pages that one collected.
 */
static uint64_t follow(Machine *m, int epoch_ms, bool live_passes)
{
    Guest *g = machine_guest(m);
    uint64_t changed = 0, most = 0, in_vain[EPOCHS];
    struct mirror c;
    Error *err = NULL;

    vm_wait_running(m);
    mirror_init(&c, m);
    VM_OK(g->ops->tracking_start(g, &err));
    assert_true(g->ops->changed_pages(g) > 0);
    mirror_collect(&c, m, true);
    vm_pause(m); /* what the guest wrote before it was copied is in the log once more */
    mirror_collect(&c, m, false);
    vm_resume(m);
    c.collected = 0;
    for (int i = 0; i < EPOCHS; i++) {
        uint64_t before = c.collected;

        vm_sleep_ms(epoch_ms);
        if (live_passes)
            mirror_collect(&c, m, true);
        vm_pause(m);
        in_vain[i] = c.collected;
        changed += mirror_differences(&c);
        in_vain[i] += mirror_differences(&c);
        mirror_collect(&c, m, false);
        assert_true(c.collected >= in_vain[i]);
        in_vain[i] = c.collected - in_vain[i];
        assert_int_equal(mirror_differences(&c), 0);
        assert_int_equal(g->ops->changed_pages(g), 0);
        most = c.collected - before > most ? c.collected - before : most;
        vm_check_walk(m);
        vm_resume(m);
    }
    print_message("%d epochs: %lu pages changed, %lu collected\n", EPOCHS, changed, c.collected);
    assert_true(c.collected > EPOCHS);
    qsort(in_vain, EPOCHS, sizeof(in_vain[0]), compare_counts);
    if (!live_passes)
        assert_in_range(in_vain[EPOCHS / 2], 0, 8);
    g->ops->tracking_stop(g);
    mirror_destroy(&c);
    return most;
}

static Machine *boot_with_rings(const char *guest, int cpus, const char *cmdline, uint32_t entries)
{
    vm_prepare(guest, cpus, cmdline)->dirty_ring = entries;
    return vm_boot_prepared();
}

static void follow_both(int cpus, const char *cmdline, bool live_passes)
{
    static const uint32_t entries[] = {0, MACHINE_DIRTY_RING_MAX};

    for (int i = 0; i < 2; i++) {
        Machine *m = boot_with_rings("walk", cpus, cmdline, entries[i]);

        follow(m, 3, live_passes);
        follow(m, 3, live_passes); /* nothing is left of the first time */
        vm_end(m);
    }
}

static void test_dirty_log(void **state)
{
    (void)state;
    follow_both(1, "size=8M", false);
    follow_both(2, "size=8M cpus=2", false);
}

static void test_dirty_log_live(void **state)
{
    (void)state;
    follow_both(2, "size=8M cpus=2", true);
}

/* More pages than both rings have room for. */
static void test_rings_full(void **state)
{
    Machine *m = boot_with_rings("walk", 2, "size=24M cpus=2", 1024);

    (void)state;
    assert_int_equal(m->kvm.ring_size, 1024);
    assert_true(follow(m, 60, false) > 2 * 1024 + 64);
    follow(m, 20, true);
    vm_end(m);
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* KVM may leave pages unprotected when a signal comes: of that nothing is seen. */
static void test_rings_and_signals(void **state)
{
    const struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    const struct sigaction action = {.sa_handler = on_alarm};
    sigset_t alarm;
    Machine *m;

    (void)state;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL); /* of the machine's threads */
    m = boot_with_rings("walk", 2, "size=24M cpus=2", MACHINE_DIRTY_RING_MAX);
    sigaction(SIGALRM, &action, NULL);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    follow(m, 10, true);
    setitimer(ITIMER_REAL, &never, NULL);
    vm_end(m);
}

/* A guest that does nothing changes nothing, and what a device writes is seen. */
static void test_dirty_by_device(void **state)
{
    Machine *m = vm_boot("ends", 1, "h");
    Guest *g = machine_guest(m);
    struct mirror c;
    Error *err = NULL;

    (void)state;
    vm_wait_console("A");
    mirror_init(&c, m);
    VM_OK(g->ops->tracking_start(g, &err));
    vm_pause(m);
    mirror_collect(&c, m, false);
    c.collected = 0;
    mirror_collect(&c, m, false);
    assert_int_equal(c.collected, 0);
    assert_true(guest_memory_write(g->memory, (32u << 20) + 4090, "over two pages", 14));
    assert_int_equal(g->ops->changed_pages(g), 2);
    mirror_collect(&c, m, false);
    assert_int_equal(c.collected, 2);
    assert_int_equal(mirror_differences(&c), 0);
    vm_resume(m);
    g->ops->tracking_stop(g);
    mirror_destroy(&c);
    vm_end(m);
}

/* A's state goes on in B, C, ...: the walk never breaks, and counts on. */
static void moves(int cpus, const char *cmdline, int times)
{
    Machine *m = vm_boot("walk", cpus, cmdline);
    uint64_t boot_id, beat;

    vm_wait_running(m);
    for (int i = 0; i < times; i++) {
        vm_sleep_ms(3);
        boot_id = vm_status(m)->boot_id;
        beat = vm_status(m)->heartbeat[0];
        m = vm_move(m);
        vm_wait_progress(m);
        assert_true(machine_running(m));
        vm_sleep_ms(5);
        vm_pause(m);
        vm_check_walk(m);
        assert_int_equal(vm_status(m)->boot_id, boot_id);
        assert_true(vm_status(m)->heartbeat[0] > beat);
        vm_resume(m);
    }
    vm_end(m);
}

static void test_move_one(void **state)
{
    (void)state;
    moves(1, "size=4M", 8);
}

static void test_move_two(void **state)
{
    (void)state;
    moves(2, "size=4M cpus=2", 8);
}

/* What was saved is what is saved again after it was loaded, but for the clocks. */
static void test_loaded_is_saved(void **state)
{
    Machine *m = vm_boot("walk", 1, "size=1M");
    struct vm_image im, second;
    size_t size, size2;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    vm_image_take(&im, m);
    machine_free(m);
    m = vm_image_machine(&im);
    vm_image_load(&im, m);
    vm_image_take(&second, m);
    perdure_stream_memory(im.devices, &size);
    perdure_stream_memory(second.devices, &size2);
    assert_int_equal(size, size2);
    vm_image_drop(&im);
    vm_image_drop(&second);
    vm_end(m);
}

static struct kvm_msr_entry *tsc_of(struct vcpu_state *s)
{
    assert_int_equal(s->msrs.entries[0].index, MSR_TSC);
    return &s->msrs.entries[0];
}

static void read_processors(Machine *m)
{
    Error *err = NULL;

    vcpu_states_ask(&m->vcpus, m->states);
    for (int i = 0; i < m->vcpus.count; i++)
        VM_OK(vcpu_state_await(m->states[i], &err));
}

/* A processor's thread that came late to its reading does not set its TSC apart from the others' after a load. (KVM
 * without TSC offsets passes whatever is done.) */
static void test_tscs_stay_together(void **state)
{
    Machine *m = vm_boot("walk", 2, "size=1M cpus=2");
    uint64_t late = (uint64_t)m->setup.tsc_khz * 3000;
    Error *err = NULL;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    read_processors(m);
    tsc_of(m->states[1])->data += late;
    for (int i = 0; i < 2; i++)
        VM_OK(vcpu_state_set(m->states[i], false, &err));
    read_processors(m);
    assert_true(tsc_of(m->states[1])->data - tsc_of(m->states[0])->data + late / 2 < late);
    vm_resume(m);
    vm_end(m);
}

/* Where the TSC runs at another frequency and cannot be scaled, no guest goes on: also at a lower one, for which KVM
 * would have a makeshift that pulls the processors' TSCs apart. */
static void refuses_tsc(Machine *m, uint32_t khz)
{
    struct vm_image im;

    m->setup.tsc_khz = khz;
    vm_image_take(&im, m);
    vm_image_refused(&im, "cannot be scaled");
    vm_image_drop(&im);
}

static void test_other_tsc(void **state)
{
    Machine *m = vm_boot("walk", 1, "size=1M");
    uint32_t here = m->setup.tsc_khz;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    if (kvm_has(&m->kvm, KVM_CAP_TSC_CONTROL)) {
        print_message("this KVM scales the TSC: there is nothing to refuse\n");
    } else {
        refuses_tsc(m, here - here / 100);
        refuses_tsc(m, here + here / 100);
    }
    vm_resume(m);
    vm_end(m);
}

/* A request that was made travels with the state; the reset can be done on the other side. */
static void test_request_travels(void **state)
{
    Machine *m = vm_boot("ends", 1, "p");
    struct vm_image im;
    Error *err = NULL;
    Guest *g;

    (void)state;
    vm_wait_event(MACHINE_POWEROFF, 1);
    vm_pause(m);
    vm_image_take(&im, m);
    machine_free(m);
    m = vm_image_machine(&im);
    g = machine_guest(m);
    vm_image_load(&im, m);
    VM_OK(g->ops->take_over(g, &err));
    assert_int_equal(g->ops->request(g), GUEST_REQUEST_POWEROFF);
    vm_resume(m);
    assert_false(machine_running(m));
    vm_sleep_ms(10);
    assert_int_equal(vm_console_count('B'), 0);
    vm_pause(m);
    VM_OK(g->ops->reset(g, &err)); /* kernel and command line came along */
    vm_resume(m);
    vm_wait_console("AA");
    vm_image_drop(&im);
    vm_end(m);
}

/* A guest that had ended when it was saved does not run on, and its owner is told. */
static void test_ended_in_file(void **state)
{
    Machine *m = vm_boot("ends", 1, "p");
    VMStream *file = perdure_stream_open_memory(1 << 20), *f;
    Error *err = NULL;
    const void *data;
    size_t size;

    (void)state;
    vm_wait_event(MACHINE_POWEROFF, 1);
    VM_OK(machine_save(m, file, &err));
    machine_free(m);
    data = perdure_stream_memory(file, &size);
    f = perdure_stream_open_buffer(data, size);
    m = machine_restore(f, vm_here(), &err);
    VM_OK(m != NULL);
    vm_listen(m);
    VM_OK(machine_start(m, &err));
    vm_wait_event(MACHINE_POWEROFF, 2);
    vm_sleep_ms(10);
    assert_int_equal(vm_console_count('B'), 0);
    perdure_stream_close(f);
    perdure_stream_close(file);
    vm_end(m);
}

/* A machine that was cleared is as good as a new one. */
static void test_clear(void **state)
{
    Machine *m = vm_boot("walk", 2, "size=1M cpus=2");
    Guest *g = machine_guest(m);
    struct vm_image im;
    Error *err = NULL;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    vm_image_take(&im, m);
    VM_OK(g->ops->clear(g, &err));
    for (uint64_t p = 0; p < g->memory->page_count; p++)
        assert_int_equal(guest_memory_page_host(g->memory, p)[0], 0);
    vm_image_load(&im, m);
    VM_OK(g->ops->take_over(g, &err));
    vm_resume(m);
    vm_wait_progress(m);
    vm_pause(m);
    vm_check_walk(m);
    vm_resume(m);
    vm_image_drop(&im);
    vm_end(m);
}

/* The same through a state file. */
static void test_state_file(void **state)
{
    Machine *m = vm_boot("walk", 2, "size=4M cpus=2");
    FILE *file = tmpfile();
    Error *err = NULL;
    uint64_t boot_id;
    VMStream *f;

    (void)state;
    vm_wait_running(m);
    boot_id = vm_status(m)->boot_id;
    f = perdure_stream_open_fd(fileno(file), "w", &err);
    VM_OK(machine_save(m, f, &err) && perdure_stream_flush(f, &err));
    perdure_stream_close(f);
    vm_wait_progress(m); /* it goes on after it was saved */
    machine_free(m);

    rewind(file);
    f = perdure_stream_open_fd(fileno(file), "r", &err);
    m = machine_restore(f, vm_here(), &err);
    VM_OK(m != NULL);
    perdure_stream_close(f);
    fclose(file);
    VM_OK(machine_start(m, &err));
    vm_wait_progress(m);
    vm_pause(m);
    vm_check_walk(m);
    assert_int_equal(vm_status(m)->boot_id, boot_id);
    vm_resume(m);
    vm_end(m);
}

/* Copies the records of from, with some octets of section wanted changed. */
static VMStream *damaged(const VMStream *from, unsigned wanted, unsigned *seed)
{
    size_t size;
    const void *data = perdure_stream_memory(from, &size);
    VMStream *in = perdure_stream_open_buffer(data, size), *out = perdure_stream_open_memory(size);
    static uint8_t body[1 << 16];
    uint16_t type;
    uint64_t id;

    for (unsigned n = 0; perdure_stream_next(in, &type, &id); n++) {
        size_t length = perdure_stream_left(in);

        assert_in_range(length, 0, sizeof(body));
        assert_true(perdure_stream_get_buffer(in, body, length));
        perdure_stream_done(in);
        for (int i = 0; n == wanted && i < 4; i++)
            body[(unsigned)rand_r(seed) % length] = (uint8_t)rand_r(seed);
        perdure_stream_begin(out, type, id);
        perdure_stream_put_buffer(out, body, length);
        perdure_stream_end(out);
    }
    perdure_stream_close(in);
    return out;
}

/* A state that lies is refused or loaded, and whatever it was, the machine is there and can start anew. */
static void test_hostile_state(void **state)
{
    Machine *m = vm_boot("walk", 2, "size=1M cpus=2");
    unsigned seed = 7, refused = 0;
    struct vm_image im;
    Error *err = NULL;
    Guest *g;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    vm_image_take(&im, m);
    g = machine_guest(m);
    for (int i = 0; i < 400; i++) {
        VMStream *bad = damaged(im.devices, (unsigned)i % 8, &seed);
        size_t size;
        const void *data = perdure_stream_memory(bad, &size);
        VMStream *f = perdure_stream_open_buffer(data, size);

        if (!perdure_loadvm_devices(f, &err)) {
            assert_non_null(err);
            error_free(err);
            err = NULL;
            refused++;
        }
        perdure_stream_close(f);
        perdure_stream_close(bad);
    }
    print_message("%u of 400 damaged states refused\n", refused);
    VM_OK(g->ops->clear(g, &err));
    vm_image_load(&im, m);
    VM_OK(g->ops->take_over(g, &err));
    vm_resume(m);
    vm_wait_progress(m);
    vm_pause(m);
    vm_check_walk(m);
    vm_resume(m);
    vm_image_drop(&im);
    vm_end(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_dirty_log_live),
        cmocka_unit_test(test_dirty_by_device),
        cmocka_unit_test(test_move_one),
        cmocka_unit_test(test_move_two),
        cmocka_unit_test(test_tscs_stay_together),
        cmocka_unit_test(test_other_tsc),
        cmocka_unit_test(test_loaded_is_saved),
        cmocka_unit_test(test_request_travels),
        cmocka_unit_test(test_state_file),
        cmocka_unit_test(test_hostile_state),
        cmocka_unit_test(test_ended_in_file),
        cmocka_unit_test(test_clear),
        cmocka_unit_test(test_rings_full),
        cmocka_unit_test(test_rings_and_signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A state taken in mid-loop goes on in a fresh machine. */
#include "vm.h"

#include "machine/machine_internal.h"
#include "machine/vcpu_msrs.h"

#include "base/task.h"
#include <perdure/savevm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What was saved is what is saved again after it was loaded, but for the processors' clocks; the guest's waits. */
static void test_loaded_is_saved(void **state)
{
    Machine *m = vm_boot("walk", 1, "size=1M");
    struct vm_image im, second;
    size_t size, size2;
    uint64_t clock;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    vm_image_take(&im, m);
    machine_free(m);
    m = vm_image_machine(&im);
    vm_image_load(&im, m);
    clock = m->irqchip.clock;
    vm_image_take(&second, m);
    assert_true(clock && m->irqchip.clock == clock);
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
    uint64_t hash;

    (void)state;
    vm_wait_running(m);
    vm_pause(m);
    vm_image_take(&im, m);
    hash = guest_memory_hash(g->memory);
    VM_OK(g->ops->clear(g, true, &err));
    assert_true(hash && guest_memory_hash(g->memory) == hash);
    VM_OK(g->ops->clear(g, false, &err));
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
    VM_OK(g->ops->clear(g, false, &err));
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
        cmocka_unit_test(test_move_one),           cmocka_unit_test(test_move_two),
        cmocka_unit_test(test_tscs_stay_together), cmocka_unit_test(test_other_tsc),
        cmocka_unit_test(test_loaded_is_saved),    cmocka_unit_test(test_request_travels),
        cmocka_unit_test(test_state_file),         cmocka_unit_test(test_hostile_state),
        cmocka_unit_test(test_ended_in_file),      cmocka_unit_test(test_clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

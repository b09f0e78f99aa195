/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Boot, pause and resume, and every way in which a guest or its user ends it. */
#include "vm.h"

#include "base/task.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAUSES          500
#define COUNTER_ADDRESS 0x300000

static void boots(int cpus, const char *cmdline)
{
    Machine *m = vm_boot("walk", cpus, cmdline);

    vm_wait_console("walk: running");
    vm_wait_running(m);
    assert_int_equal(vm_status(m)->cpus, cpus);
    vm_pause(m);
    vm_check_walk(m);
    vm_resume(m);
    vm_end(m);
}

static void test_boot_one(void **state)
{
    (void)state;
    boots(1, "size=1M");
}

static void test_boot_two(void **state)
{
    (void)state;
    boots(2, "size=1M cpus=2");
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t beats(Machine *m)
{
    return vm_status(m)->heartbeat[0] + vm_status(m)->heartbeat[1];
}

/* Nothing moves while paused, everything moves after; the time to get there is printed. */
static void many_pauses(int cpus, const char *cmdline)
{
    Machine *m = vm_boot("walk", cpus, cmdline);
    int64_t took[PAUSES];

    vm_wait_running(m);
    for (int i = 0; i < PAUSES; i++) {
        int64_t begin = clock_now();
        uint64_t before;

        vm_pause(m);
        took[i] = clock_now() - begin;
        before = beats(m);
        if (i % 50 == 0) {
            vm_sleep_ms(1);
            vm_check_walk(m);
        }
        assert_int_equal(beats(m), before);
        vm_resume(m);
        vm_wait_progress(m);
    }
    qsort(took, PAUSES, sizeof(took[0]), by_size);
    print_message("%d pauses, %d vCPUs: min %ld us, p10 %ld us, p50 %ld us, p99 %ld us\n", PAUSES, cpus,
                  (long)(took[0] / NS_PER_US), (long)(took[PAUSES / 10] / NS_PER_US),
                  (long)(took[PAUSES / 2] / NS_PER_US), (long)(took[PAUSES * 99 / 100] / NS_PER_US));
    vm_end(m);
}

static void test_pauses_one(void **state)
{
    (void)state;
    many_pauses(1, "size=1M");
}

static void test_pauses_two(void **state)
{
    (void)state;
    many_pauses(2, "size=1M cpus=2");
}

static uint32_t port_counter(Machine *m)
{
    return *(volatile uint32_t *)guest_memory_map(machine_guest(m)->memory, COUNTER_ADDRESS, 4);
}

static void wait_counter(Machine *m, uint32_t beyond)
{
    int64_t end = clock_now() + 20 * NS_PER_S;

    while (port_counter(m) <= beyond) {
        if (clock_now() > end)
            fail_msg("the guest stands still at %u", beyond);
        vm_sleep_ms(1);
    }
}

/* A pause that hits a port access half done lets it come to its end. */
static void test_pauses_in_ports(void **state)
{
    Machine *m = vm_boot("ends", 1, "l");

    (void)state;
    wait_counter(m, 0);
    for (int i = 0; i < PAUSES; i++) {
        uint32_t before;

        vm_pause(m);
        before = port_counter(m);
        assert_int_equal(port_counter(m), before);
        vm_resume(m);
        if (i % 50 == 0)
            wait_counter(m, before);
    }
    wait_counter(m, port_counter(m) + 100);
    assert_int_equal(vm_console_count('X'), 0);
    vm_end(m);
}

/* A halted processor comes out too. */
static void test_pause_halted(void **state)
{
    Machine *m = vm_boot("ends", 2, "h");

    (void)state;
    vm_wait_console("A");
    for (int i = 0; i < 50; i++) {
        vm_pause(m);
        vm_resume(m);
    }
    vm_end(m);
}

static void test_stop_and_start(void **state)
{
    Machine *m = vm_boot("walk", 1, "size=1M");
    uint64_t before;
    Error *err = NULL;

    (void)state;
    vm_wait_running(m);
    machine_stop(m);
    assert_false(machine_running(m));
    before = beats(m);
    vm_pause(m);
    vm_resume(m); /* stays still: the user stopped it */
    vm_sleep_ms(20);
    assert_int_equal(beats(m), before);
    VM_OK(machine_start(m, &err));
    vm_wait_progress(m);
    assert_int_equal(vm_events(MACHINE_STOPPED), 1);
    vm_end(m);
}

static void test_user_reset(void **state)
{
    Machine *m = vm_boot("walk", 1, "size=1M");
    Error *err = NULL;
    uint64_t boot_id;

    (void)state;
    vm_wait_running(m);
    boot_id = vm_status(m)->boot_id;
    for (int i = 0; i < 3; i++) {
        VM_OK(machine_reset(m, &err));
        vm_wait_running(m);
        assert_int_not_equal(vm_status(m)->boot_id, boot_id);
        boot_id = vm_status(m)->boot_id;
    }
    vm_wait_event(MACHINE_RESET, 3);
    vm_end(m);
}

/* Reset by the guest: it starts anew by itself, again and again. */
static void resets(const char *how)
{
    Machine *m = vm_boot("ends", 1, how);

    vm_wait_event(MACHINE_RESET, 5);
    assert_in_range(vm_console_count('A'), 5, 100000);
    assert_int_equal(vm_console_count('B'), 0);
    vm_end(m);
}

static void test_guest_resets(void **state)
{
    (void)state;
    resets("r");
    resets("k");
    resets("t");
}

/* An end: told once, and the guest stands still. */
static void ends(const char *how, enum machine_event ev, enum guest_request request)
{
    Machine *m = vm_boot("ends", 1, how);
    Guest *g = machine_guest(m);

    vm_wait_event(ev, 1);
    assert_false(machine_running(m));
    vm_pause(m);
    assert_int_equal(g->ops->request(g), request);
    vm_resume(m);
    vm_sleep_ms(20);
    assert_int_equal(vm_console_count('A'), 1);
    assert_int_equal(vm_console_count('B'), 0);
    assert_int_equal(vm_events(ev), 1);
    vm_end(m);
}

static void test_guest_ends(void **state)
{
    (void)state;
    ends("p", MACHINE_POWEROFF, GUEST_REQUEST_POWEROFF);
    ends("b", MACHINE_PANICKED, GUEST_REQUEST_PANIC);
}

/* What KVM cannot run is told, and the process lives on; a reset starts the guest anew. */
static void test_kvm_gives_up(void **state)
{
    Machine *m = vm_boot("ends", 1, "e");
    Error *err = NULL;

    (void)state;
    vm_wait_event(MACHINE_ERROR, 1);
    vm_pause(m);
    vm_resume(m);
    assert_int_equal(vm_events(MACHINE_ERROR), 1);
    VM_OK(machine_reset(m, &err));
    vm_wait_event(MACHINE_ERROR, 2);
    assert_int_equal(vm_console_count('A'), 2);
    vm_end(m);
}

/* The console as a socket: one client after the other, and none at all. */
static void test_console_socket(void **state)
{
    struct machine_config *c = vm_prepare("ends", 1, "h");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    Error *err = NULL;
    Machine *m;

    (void)state;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/perdure-vm-socket.%d", getpid());
    snprintf(c->console, sizeof(c->console), "unix:%s", addr.sun_path);
    m = vm_boot_prepared();
    for (int i = 0; i < 3; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        char byte = 0;

        assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
        assert_int_equal(write(fd, "typed by nobody\n", 16), 16);
        vm_sleep_ms(50); /* until it is accepted */
        VM_OK(machine_reset(m, &err));
        assert_int_equal(read(fd, &byte, 1), 1);
        assert_int_equal(byte, 'A');
        close(fd);
    }
    vm_end(m);
    assert_int_not_equal(access(addr.sun_path, F_OK), 0);
}

static void count_request(void *opaque)
{
    atomic_fetch_add((atomic_uint *)opaque, 1);
}

/* With an engine in charge nothing happens by itself. */
static void test_engine_in_charge(void **state)
{
    Machine *m = vm_boot("ends", 1, "h");
    Guest *g = machine_guest(m);
    atomic_uint requests = 0;
    Error *err = NULL;

    (void)state;
    vm_wait_console("A");
    vm_pause(m);
    g->on_request = count_request;
    g->on_request_opaque = &requests;
    vm_resume(m);
    machine_request(m, GUEST_REQUEST_RESET);
    machine_request(m, GUEST_REQUEST_POWEROFF); /* the first one counts */
    assert_int_equal(atomic_load(&requests), 1);
    vm_sleep_ms(20);
    assert_int_equal(vm_events(MACHINE_RESET), 0);
    vm_pause(m);
    assert_int_equal(g->ops->request(g), GUEST_REQUEST_RESET);
    VM_OK(g->ops->reset(g, &err));
    assert_int_equal(g->ops->request(g), GUEST_REQUEST_NONE);
    vm_resume(m);
    vm_wait_console("AA");
    vm_end(m);
}

static void test_bad_kernel(void **state)
{
    struct machine_config c = {.name = "bad",
                               .cpus = 1,
                               .memory = VM_MEMORY,
                               .cpu_model = "host",
                               .kernel = "no kernel",
                               .kernel_size = 9};
    Error *err = NULL;
    Machine *m = machine_new(&c, &err);

    (void)state;
    VM_OK(m != NULL);
    assert_false(machine_boot(m, &err));
    assert_non_null(err);
    error_free(err);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boot_one),         cmocka_unit_test(test_boot_two),
        cmocka_unit_test(test_pauses_one),       cmocka_unit_test(test_pauses_two),
        cmocka_unit_test(test_pauses_in_ports),  cmocka_unit_test(test_pause_halted),
        cmocka_unit_test(test_stop_and_start),   cmocka_unit_test(test_user_reset),
        cmocka_unit_test(test_guest_resets),     cmocka_unit_test(test_guest_ends),
        cmocka_unit_test(test_engine_in_charge), cmocka_unit_test(test_bad_kernel),
        cmocka_unit_test(test_kvm_gives_up),     cmocka_unit_test(test_console_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

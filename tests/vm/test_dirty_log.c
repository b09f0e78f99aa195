/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dirty log misses nothing, with KVM's bitmap and with rings; and a throttle finds those who write. */
#include "vm.h"

#include "machine/machine_internal.h"

#include "base/task.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

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
    VM_OK(g->ops->tracking_start(g, false, &err));
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

/* Stops and continues this process until it is killed. */
static pid_t begin_stops(void)
{
    pid_t self = getpid(), child = fork();

    for (unsigned i = 0; child == 0; i++) {
        usleep(100 + i * 37 % 400);
        if (kill(self, SIGSTOP) || kill(self, SIGCONT))
            _exit(1);
    }
    assert_true(child > 0);
    return child;
}

static void end_stops(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    kill(getpid(), SIGCONT);
}

/* KVM may leave pages unprotected when a signal comes, also one that cannot be held back: of that nothing is seen. */
static void test_rings_and_signals(void **state)
{
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    const struct sigaction action = {.sa_handler = on_alarm};
    sigset_t alarm;
    pid_t child;
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
    child = begin_stops();
    follow(m, 10, true);
    end_stops(child);
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
    VM_OK(g->ops->tracking_start(g, false, &err));
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

/* What the guest's processors did: the first one writes, the second one counts. */
struct paces {
    double writes, counts;
};

static struct paces paces_for(Machine *m, int ms)
{
    const volatile struct guest_status *s = vm_status(m);
    uint64_t writes = s->dirty.pages_written, counts = s->heartbeat[1];
    int64_t begin = clock_now();

    vm_sleep_ms(ms);
    return (struct paces){(double)(s->dirty.pages_written - writes) / (double)(clock_now() - begin),
                          (double)(s->heartbeat[1] - counts) / (double)(clock_now() - begin)};
}

/* How much more the throttle takes from who writes than from who does not; 1: as much. */
static double throttled(uint32_t ring)
{
    Machine *m = boot_with_rings("dirty", 2, "rate=100000000 pages=2048 cpus=2", ring);
    Guest *g = machine_guest(m);
    struct paces free, slow;
    struct mirror c;
    Error *err = NULL;

    vm_wait_running(m);
    mirror_init(&c, m);
    VM_OK(g->ops->tracking_start(g, false, &err));
    free = paces_for(m, 300);
    for (int i = 0; i < 3; i++) {
        mirror_collect(&c, m, true);
        vm_sleep_ms(100); /* until the first write to each page is behind it */
    }
    g->ops->throttle(g, GUEST_THROTTLE_MAX);
    slow = paces_for(m, 1200);
    g->ops->throttle(g, 0);
    vm_wait_progress(m);
    print_message("writes %.0f -> %.0f, counts %.0f -> %.0f in a ms\n", free.writes * 1e6, slow.writes * 1e6,
                  free.counts * 1e6, slow.counts * 1e6);
    g->ops->tracking_stop(g);
    mirror_destroy(&c);
    vm_end(m);
    return slow.counts / free.counts / (slow.writes / free.writes);
}

static void test_throttle(void **state)
{
    double alike = throttled(0), writers = throttled(MACHINE_DIRTY_RING_MAX);

    (void)state;
    for (int i = 0; i < 3 && (alike > 4 || writers < 4); i++) { /* the host may be busy */
        alike = throttled(0);
        writers = throttled(MACHINE_DIRTY_RING_MAX);
    }
    assert_true(alike < 4);
    assert_true(writers > 4);
}

/* --- a host without rings --- */

static bool no_rings;
int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (no_rings && request == KVM_CHECK_EXTENSION && arg == (void *)KVM_CAP_DIRTY_LOG_RING)
        return 0;
    return __real_ioctl(fd, request, arg);
}

static void test_no_rings(void **state)
{
    struct machine_config *c = vm_prepare("walk", 1, "");
    Error *err = NULL;

    (void)state;
    c->dirty_ring = MACHINE_DIRTY_RING_MAX;
    no_rings = true;
    assert_null(machine_new(c, &err));
    no_rings = false;
    assert_non_null(strstr(error_get_pretty(err), "without --dirty-ring"));
    assert_null(strchr(error_get_pretty(err), '\n'));
    error_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dirty_log),         cmocka_unit_test(test_dirty_log_live),
        cmocka_unit_test(test_dirty_by_device),   cmocka_unit_test(test_rings_full),
        cmocka_unit_test(test_rings_and_signals), cmocka_unit_test(test_throttle),
        cmocka_unit_test(test_no_rings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

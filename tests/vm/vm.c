/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vm.h"

#include "base/task.h"
#include "machine/guest_images.h"
#include <perdure/savevm.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE (20 * NS_PER_S)

static char console_path[64];
static struct machine_config config;
static atomic_uint events[MACHINE_ERROR + 1];

void vm_sleep_ms(int ms)
{
    task_sleep_until(clock_now() + ms * NS_PER_MS);
}

static void on_event(void *opaque, enum machine_event ev)
{
    (void)opaque;
    atomic_fetch_add(&events[ev], 1);
}

unsigned vm_events(enum machine_event ev)
{
    return atomic_load(&events[ev]);
}

void vm_listen(Machine *m)
{
    machine_set_listener(m, on_event, NULL);
}

static void fill_config(const char *guest, int cpus, const char *cmdline)
{
    const struct guest_image *image = guest_image_find(guest);

    config = (struct machine_config){.name = "test", .cpus = cpus, .memory = VM_MEMORY, .cpu_model = "host"};
    snprintf(config.cmdline, sizeof(config.cmdline), "%s", cmdline);
    snprintf(console_path, sizeof(console_path), "/tmp/perdure-vm-test.%d", getpid());
    snprintf(config.console, sizeof(config.console), "file:%s", console_path);
    config.kernel = image ? (void *)image->start : (void *)ends_start;
    config.kernel_size = image ? guest_image_size(image) : (size_t)(ends_end - ends_start);
}

const struct machine_config *vm_here(void)
{
    return &config;
}

struct machine_config *vm_prepare(const char *guest, int cpus, const char *cmdline)
{
    fill_config(guest, cpus, cmdline);
    return &config;
}

Machine *vm_boot(const char *guest, int cpus, const char *cmdline)
{
    vm_prepare(guest, cpus, cmdline);
    return vm_boot_prepared();
}

Machine *vm_boot_prepared(void)
{
    Error *err = NULL;
    Machine *m;

    unlink(console_path);
    for (int i = 0; i <= MACHINE_ERROR; i++)
        atomic_store(&events[i], 0);
    m = machine_new(&config, &err);
    VM_OK(m != NULL);
    vm_listen(m);
    VM_OK(machine_boot(m, &err));
    VM_OK(machine_start(m, &err));
    return m;
}

void vm_end(Machine *m)
{
    machine_free(m);
    unlink(console_path);
}

void vm_wait_event(enum machine_event ev, unsigned count)
{
    int64_t end = clock_now() + PATIENCE;

    while (vm_events(ev) < count) {
        if (clock_now() > end)
            fail_msg("event %d did not come %u times", ev, count);
        vm_sleep_ms(2);
    }
}

static size_t read_console(char *buf, size_t size)
{
    FILE *f = fopen(console_path, "r");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;

    if (f)
        fclose(f);
    buf[n] = 0;
    return n;
}

void vm_wait_console(const char *text)
{
    int64_t end = clock_now() + PATIENCE;
    char buf[4096];

    for (;;) {
        read_console(buf, sizeof(buf));
        if (strstr(buf, text))
            return;
        if (clock_now() > end)
            fail_msg("the guest did not print '%s' but '%s'", text, buf);
        vm_sleep_ms(2);
    }
}

unsigned vm_console_count(char c)
{
    char buf[4096];
    unsigned n = 0;

    read_console(buf, sizeof(buf));
    for (char *p = buf; *p; p++)
        n += *p == c;
    return n;
}

const volatile struct guest_status *vm_status(Machine *m)
{
    return guest_memory_map(machine_guest(m)->memory, GUEST_STATUS_ADDRESS, sizeof(struct guest_status));
}

void vm_wait_running(Machine *m)
{
    int64_t end = clock_now() + PATIENCE;

    while (vm_status(m)->magic != GUEST_STATUS_MAGIC || vm_status(m)->state != GUEST_STATE_RUNNING) {
        if (clock_now() > end)
            fail_msg("the guest does not run");
        vm_sleep_ms(2);
    }
    vm_wait_progress(m);
}

/* Every processor of it. */
void vm_wait_progress(Machine *m)
{
    int64_t end = clock_now() + PATIENCE;

    for (unsigned i = 0; i < vm_status(m)->cpus; i++) {
        uint64_t before = vm_status(m)->heartbeat[i];

        while (vm_status(m)->heartbeat[i] == before)
            if (clock_now() > end)
                fail_msg("processor %u of the guest does not run", i);
    }
}

static void check_part(Machine *m, uint64_t first, uint64_t count)
{
    GuestMemory *memory = machine_guest(m)->memory;
    uint64_t start = vm_status(m)->walk.start;
    uint8_t top = 0, before = 0;
    int steps = 0;

    for (uint64_t p = first; p < first + count; p++) {
        const uint8_t *page = guest_memory_map(memory, start + p * GUEST_PAGE, GUEST_PAGE);
        uint8_t value = page[0];
        uint64_t stamp;

        memcpy(&stamp, page + guest_walk_stamp_offset(value), sizeof(stamp));
        if (stamp != guest_walk_stamp(p, value))
            fail_msg("page %lu does not hold the stamp of its value %u", p, value);
        if (p == first)
            top = value;
        else if (value != before && (++steps > 1 || value != (uint8_t)(top - 1)))
            fail_msg("page %lu holds %u after %u: lost, or of another time", p, value, before);
        before = value;
    }
}

void vm_check_walk(Machine *m)
{
    const volatile struct guest_status *s = vm_status(m);
    uint64_t pages = s->walk.size / GUEST_PAGE / s->cpus;

    assert_int_equal(s->errors, 0);
    for (unsigned i = 0; i < s->cpus; i++)
        check_part(m, i * pages, pages);
}

void vm_pause(Machine *m)
{
    Error *err = NULL;
    Guest *g = machine_guest(m);

    VM_OK(g->ops->pause(g, &err));
}

void vm_resume(Machine *m)
{
    Guest *g = machine_guest(m);

    g->ops->resume(g);
}

/* --- the state, from one machine to the next --- */

void vm_image_take(struct vm_image *im, Machine *m)
{
    Guest *g = machine_guest(m);
    Error *err = NULL;

    im->config = perdure_stream_open_memory(1 << 20);
    im->devices = perdure_stream_open_memory(1 << 20);
    im->pages = g->memory->page_count;
    im->ram = malloc(im->pages * GUEST_PAGE_SIZE);
    assert_non_null(im->ram);
    VM_OK(g->ops->save_config(g, im->config, &err));
    VM_OK(perdure_savevm_devices(im->devices, &err));
    for (uint64_t p = 0; p < im->pages; p++)
        memcpy(im->ram + p * GUEST_PAGE_SIZE, guest_memory_page_host(g->memory, p), GUEST_PAGE_SIZE);
}

void vm_image_drop(struct vm_image *im)
{
    perdure_stream_close(im->config);
    perdure_stream_close(im->devices);
    free(im->ram);
}

static VMStream *again(const VMStream *f)
{
    size_t size;
    const void *data = perdure_stream_memory(f, &size);

    return perdure_stream_open_buffer(data, size);
}

Machine *vm_image_machine(const struct vm_image *im)
{
    VMStream *f = again(im->config);
    Error *err = NULL;
    Machine *m = machine_new_from_stream(f, &config, &err);

    VM_OK(m != NULL);
    perdure_stream_close(f);
    vm_listen(m);
    return m;
}

void vm_image_refused(const struct vm_image *im, const char *words)
{
    VMStream *f = again(im->config);
    Error *err = NULL;

    assert_null(machine_new_from_stream(f, &config, &err));
    assert_non_null(strstr(error_get_pretty(err), words));
    error_free(err);
    perdure_stream_close(f);
}

void vm_image_load(const struct vm_image *im, Machine *m)
{
    Guest *g = machine_guest(m);
    VMStream *f = again(im->devices);
    Error *err = NULL;

    for (uint64_t p = 0; p < im->pages; p++)
        memcpy(guest_memory_page_host(g->memory, p), im->ram + p * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
    VM_OK(perdure_loadvm_devices(f, &err));
    perdure_stream_close(f);
}

Machine *vm_move(Machine *m)
{
    struct vm_image im;
    Error *err = NULL;

    vm_pause(m);
    vm_image_take(&im, m);
    machine_free(m);
    m = vm_image_machine(&im);
    vm_image_load(&im, m);
    vm_image_drop(&im);
    VM_OK(machine_guest(m)->ops->take_over(machine_guest(m), &err));
    vm_resume(m);
    return m;
}

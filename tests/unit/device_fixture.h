/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine for one device: memory, a loop, a bus without processors. The test plays the guest: it reads and
 * writes registers as a vCPU would, with the loop lock held.
 */
#ifndef TESTS_DEVICE_FIXTURE_H
#define TESTS_DEVICE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/loop.h"
#include "device/devices.h"
#include "guest/memory.h"
#include <perdure/stream.h>

#define FIXTURE_RAM     (1u << 20)
#define FIXTURE_REGIONS 32
#define FIXTURE_MSIS    64

struct fixture {
    struct device_host host;
    struct {
        enum io_space space;
        uint64_t base, size;
        const struct io_ops *ops;
        void *opaque;
    } regions[FIXTURE_REGIONS];
    unsigned region_count;
    struct {
        uint64_t gpa;
        int fd;
    } doorbells[FIXTURE_REGIONS];
    unsigned doorbell_count;
    bool refuse_doorbells;
    bool irq[24];
    unsigned msi_count;
    struct {
        uint64_t address;
        uint32_t data;
    } msis[FIXTURE_MSIS];
    enum guest_request request;
    unsigned requests;
};

static inline struct fixture *fixture_of(struct device_host *h)
{
    return h->opaque;
}

static inline void fixture_set_irq(struct device_host *h, unsigned gsi, bool level)
{
    fixture_of(h)->irq[gsi] = level;
}

static inline void fixture_send_msi(struct device_host *h, uint64_t address, uint32_t data)
{
    struct fixture *f = fixture_of(h);

    f->msis[f->msi_count % FIXTURE_MSIS].address = address;
    f->msis[f->msi_count++ % FIXTURE_MSIS].data = data;
}

static inline bool fixture_map(struct device_host *h, enum io_space space, uint64_t base, uint64_t size,
                               const struct io_ops *ops, void *opaque, Error **errp)
{
    struct fixture *f = fixture_of(h);

    for (unsigned i = 0; i < f->region_count; i++) {
        if (f->regions[i].space == space && base < f->regions[i].base + f->regions[i].size &&
            f->regions[i].base < base + size) {
            error_setg(errp, "overlap at 0x%llx", (unsigned long long)base);
            return false;
        }
    }
    assert_true(f->region_count < FIXTURE_REGIONS);
    f->regions[f->region_count].space = space;
    f->regions[f->region_count].base = base;
    f->regions[f->region_count].size = size;
    f->regions[f->region_count].ops = ops;
    f->regions[f->region_count++].opaque = opaque;
    return true;
}

static inline void fixture_unmap(struct device_host *h, enum io_space space, uint64_t base)
{
    struct fixture *f = fixture_of(h);

    for (unsigned i = 0; i < f->region_count; i++) {
        if (f->regions[i].space == space && f->regions[i].base == base) {
            f->regions[i] = f->regions[--f->region_count];
            return;
        }
    }
    fail_msg("unmap of what is not mapped: 0x%llx", (unsigned long long)base);
}

static inline bool fixture_map_doorbell(struct device_host *h, uint64_t gpa, int fd, Error **errp)
{
    struct fixture *f = fixture_of(h);

    if (f->refuse_doorbells) {
        error_setg(errp, "no doorbells");
        return false;
    }
    assert_true(f->doorbell_count < FIXTURE_REGIONS);
    f->doorbells[f->doorbell_count].gpa = gpa;
    f->doorbells[f->doorbell_count++].fd = fd;
    return true;
}

static inline void fixture_unmap_doorbell(struct device_host *h, uint64_t gpa, int fd)
{
    struct fixture *f = fixture_of(h);

    for (unsigned i = 0; i < f->doorbell_count; i++) {
        if (f->doorbells[i].gpa == gpa && f->doorbells[i].fd == fd) {
            f->doorbells[i] = f->doorbells[--f->doorbell_count];
            return;
        }
    }
    fail_msg("unmap of a doorbell that is not there");
}

static inline void fixture_request(struct device_host *h, enum guest_request what)
{
    fixture_of(h)->request = what;
    fixture_of(h)->requests++;
}

/* The loop runs only if the test starts it (loop_start). */
static inline struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->host = (struct device_host){
        .memory = guest_memory_new(FIXTURE_RAM, NULL),
        .loop = loop_new(NULL),
        .opaque = f,
        .set_irq = fixture_set_irq,
        .send_msi = fixture_send_msi,
        .map = fixture_map,
        .unmap = fixture_unmap,
        .map_doorbell = fixture_map_doorbell,
        .unmap_doorbell = fixture_unmap_doorbell,
        .request = fixture_request,
    };
    assert_non_null(f->host.memory);
    assert_non_null(f->host.loop);
    return f;
}

/* The devices must be destroyed before; none may have left anything behind. */
static inline void fixture_free(struct fixture *f)
{
    assert_int_equal(f->region_count, 0);
    assert_int_equal(f->doorbell_count, 0);
    loop_free(f->host.loop);
    guest_memory_free(f->host.memory);
    free(f);
}

static inline void device_destroy(Device *d)
{
    Loop *loop = d->host->loop;

    loop_lock(loop);
    d->class->destroy(d);
    loop_unlock(loop);
}

/* --- the guest's accesses --- */

static inline uint64_t bus_read(struct fixture *f, enum io_space space, uint64_t address, unsigned size)
{
    uint64_t v = UINT64_MAX;

    loop_lock(f->host.loop);
    for (unsigned i = 0; i < f->region_count; i++) {
        if (f->regions[i].space == space && address >= f->regions[i].base &&
            address + size <= f->regions[i].base + f->regions[i].size) {
            v = f->regions[i].ops->read(f->regions[i].opaque, address - f->regions[i].base, size);
            break;
        }
    }
    loop_unlock(f->host.loop);
    return size == 8 ? v : v & ((UINT64_C(1) << (8 * size)) - 1);
}

static inline void bus_write(struct fixture *f, enum io_space space, uint64_t address, uint64_t value,
                             unsigned size)
{
    loop_lock(f->host.loop);
    for (unsigned i = 0; i < f->region_count; i++) {
        if (f->regions[i].space == space && address >= f->regions[i].base &&
            address + size <= f->regions[i].base + f->regions[i].size) {
            f->regions[i].ops->write(f->regions[i].opaque, address - f->regions[i].base, value, size);
            break;
        }
    }
    loop_unlock(f->host.loop);
}

static inline uint8_t inb(struct fixture *f, uint16_t port)
{
    return bus_read(f, IO_PORT, port, 1);
}

static inline void outb(struct fixture *f, uint16_t port, uint8_t v)
{
    bus_write(f, IO_PORT, port, v, 1);
}

static inline uint32_t config_read(struct fixture *f, unsigned slot, unsigned offset, unsigned size)
{
    bus_write(f, IO_PORT, 0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc), 4);
    return bus_read(f, IO_PORT, 0xcfc + (offset & 3), size);
}

static inline void config_write(struct fixture *f, unsigned slot, unsigned offset, uint32_t v, unsigned size)
{
    bus_write(f, IO_PORT, 0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc), 4);
    bus_write(f, IO_PORT, 0xcfc + (offset & 3), v, size);
}

/* --- state --- */

/* The states of all devices that exist now, to be closed by the caller. */
static inline VMStream *state_save(void)
{
    VMStream *s = perdure_stream_open_memory(65536);
    Error *err = NULL;

    if (!perdure_savevm_devices(s, &err))
        fail_msg("save: %s", error_get_pretty(err));
    return s;
}

static inline bool state_load(VMStream *saved, Error **errp)
{
    size_t size;
    const void *data = perdure_stream_memory(saved, &size);
    VMStream *s = perdure_stream_open_buffer(data, size);
    bool ok = perdure_loadvm_devices(s, errp);

    perdure_stream_close(s);
    return ok;
}

static inline void state_load_ok(VMStream *saved)
{
    Error *err = NULL;

    if (!state_load(saved, &err))
        fail_msg("load: %s", error_get_pretty(err));
}

/* What was loaded is what would be saved. */
static inline void assert_same_state(VMStream *a, VMStream *b)
{
    size_t na, nb;
    const void *da = perdure_stream_memory(a, &na), *db = perdure_stream_memory(b, &nb);

    assert_int_equal(na, nb);
    assert_memory_equal(da, db, na);
}

static inline void settle(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Waits for condition, at most ten seconds. */
#define eventually(condition)                                                                                \
    do {                                                                                                     \
        for (int tries_ = 0; !(condition) && tries_ < 10000; tries_++)                                       \
            settle();                                                                                        \
        assert_true(condition);                                                                              \
    } while (0)

#endif

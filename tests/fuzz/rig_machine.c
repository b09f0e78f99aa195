/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rig_machine.h"
#include "stream_records.h"

#include "base/bitmap.h"
#include "base/loop_private.h"
#include "base/crc32c.h"
#include "block/replication_filter.h"
#include "guest/ram_state.h"
#include "machine/machine_config.h"
#include "../unit/machine_fixture.h"
#include "../unit/memory_block.h"

#include <stdio.h>

#define DISK_SIZE    2048u /* one short chunk */
#define JOURNAL_SIZE (512u << 10)
#define QUEUE_LIMIT  (64u << 10)
#define CHANGES      2 /* what a source's guest does, one at the beginning of a pass and one behind a part */
#define LOOP_TURNS   4
#define DISK_OFFSET  1024u
#define DISK_VALUE   0x55
#define CONTENT_GPA  0xa0000u

struct rig_machine {
    Guest guest; /* first */
    struct machine_fixture *fixture;
    ReplicationGroup *group;
    struct memory_block *disk;
    Block *top;
    uint64_t *changed;
    bool source, paused, ran;
    enum guest_disk_hold hold; /* of a disk that both sides see, and that has no content here */
    unsigned changes, turns;
    int tracking;
    uint64_t memory_hash, disk_hash, device_hash; /* ran: as it began */
};

static struct rig_machine *machine_of(Guest *g)
{
    return (struct rig_machine *)g;
}

static uint64_t hash_disk(const struct rig_machine *m)
{
    return crc32c(0, m->disk->bytes, DISK_SIZE);
}

static bool tells_time(const struct record *r)
{
    return !memcmp(r->body + 2, "rtc", 3) || !memcmp(r->body + 2, "pm", 2);
}

/* Section by section: the order of a machine's devices is always the same. */
static uint64_t hash_devices(void)
{
    VMStream *f = perdure_stream_open_memory(0);
    struct records *rs = malloc(sizeof(*rs));
    const void *data;
    uint32_t crc = 0;
    size_t size;

    assert_true(perdure_savevm_devices(f, NULL));
    data = perdure_stream_memory(f, &size);
    records_split(rs, data, size);
    for (unsigned i = 0; i < rs->count; i++)
        if (!tells_time(&rs->r[i]))
            crc = crc32c(crc, rs->r[i].body, rs->r[i].size);
    records_free(rs);
    free(rs);
    perdure_stream_close(f);
    return crc;
}

/* --- what the guest does --- */

/* No two pages alike. */
static void fill_pages(struct rig_machine *m, unsigned count, uint8_t seed)
{
    uint8_t page[GUEST_PAGE_SIZE];

    for (unsigned i = 0; i < count; i++) {
        memset(page, seed + (int)i, sizeof(page));
        assert_true(
            guest_memory_write(m->guest.memory, CONTENT_GPA + i * GUEST_PAGE_SIZE, page, sizeof(page)));
    }
}

static void write_disk(struct rig_machine *m, uint64_t offset, uint8_t value)
{
    uint8_t sector[512];

    memset(sector, value, sizeof(sector));
    assert_true(block_write(m->top, offset, sector, sizeof(sector), NULL));
}

/* What the source of random bytes gave the guest: every source is the same machine. */
static void forget_chance(struct rig_machine *m)
{
    static const uint8_t zeroes[64];

    assert_true(guest_memory_write(m->guest.memory, DRIVER_BUFFERS + 0x1000, zeroes, sizeof(zeroes)));
}

static void do_something(struct rig_machine *m)
{
    if (!m->changes)
        return;
    m->changes--;
    fill_pages(m, 1, (uint8_t)(10 * m->changes + 1));
    write_disk(m, 512 * m->changes, DISK_VALUE);
}

/* --- struct guest_ops --- */

static bool rig_pause(Guest *g, Error **errp)
{
    (void)errp;
    machine_of(g)->paused = true;
    return true;
}

static void stop_after_turns(void *opaque)
{
    struct rig_machine *m = opaque;
    Loop *l = m->fixture->f->host.loop;

    if (m->turns--)
        loop_post(l, stop_after_turns, m);
    else
        l->stopping = true;
}

/* A destination's devices go on for some turns. */
static void rig_resume(Guest *g)
{
    struct rig_machine *m = machine_of(g);
    Loop *l = m->fixture->f->host.loop;

    assert_int_equal(m->hold, GUEST_DISKS_HELD);
    m->paused = false;
    if (m->source || m->ran)
        return;
    m->ran = true;
    machine_fixture_read_registers(m->fixture);
    m->turns = LOOP_TURNS;
    loop_post(l, stop_after_turns, m); /* before the start: the loop never waits, for it waits in real time */
    assert_true(loop_start(l, NULL));
}

static bool rig_tracking_start(Guest *g, bool equal, Error **errp)
{
    (void)errp;
    machine_of(g)->tracking++;
    if (!equal)
        guest_memory_populated(g->memory, machine_of(g)->changed);
    return true;
}

static void rig_tracking_stop(Guest *g)
{
    machine_of(g)->tracking--;
}

static bool rig_take_changed(Guest *g, uint64_t *map, Error **errp)
{
    struct rig_machine *m = machine_of(g);

    (void)errp;
    guest_memory_take_dirty(g->memory, m->changed);
    bitmap_or(map, m->changed, g->memory->page_count);
    memset(m->changed, 0, bitmap_bytes(g->memory->page_count));
    if (!m->paused)
        do_something(m);
    task_sleep_until(clock_now() + NS_PER_MS); /* passes take time */
    return true;
}

static uint64_t rig_changed_pages(Guest *g)
{
    struct rig_machine *m = machine_of(g);

    if (!m->paused)
        do_something(m);
    guest_memory_take_dirty(g->memory, m->changed);
    return bitmap_popcount(m->changed, g->memory->page_count);
}

static enum guest_request rig_request(Guest *g)
{
    return machine_of(g)->fixture->f->request;
}

static bool rig_reset(Guest *g, Error **errp)
{
    (void)errp;
    machine_of(g)->fixture->f->request = GUEST_REQUEST_NONE;
    return true;
}

static bool rig_mark_disks(Guest *g, const struct guest_disk_mark *mark, Error **errp)
{
    (void)errp;
    replication_group_set_pair(machine_of(g)->group, mark->pair, mark->generation);
    return true;
}

/* Of all machines that there are. */
static unsigned holders;

/* Nobody else may hold it; and what is held is let go by a machine that stands still. */
static bool rig_hold_disks(Guest *g, enum guest_disk_hold how, Error **errp)
{
    struct rig_machine *m = machine_of(g);

    (void)errp;
    assert_true(how == m->hold || !m->source || m->paused);
    assert_true(how != GUEST_DISKS_OFFERED || m->hold != GUEST_DISKS_LEFT);
    holders += (how == GUEST_DISKS_HELD) - (m->hold == GUEST_DISKS_HELD);
    assert_true(holders <= 1);
    m->hold = how;
    return true;
}

static bool rig_take_over(Guest *g, Error **errp)
{
    struct rig_machine *m = machine_of(g);

    (void)errp;
    assert_int_equal(m->hold, GUEST_DISKS_HELD);
    m->memory_hash = guest_memory_hash(g->memory);
    m->disk_hash = hash_disk(m);
    m->device_hash = hash_devices();
    loop_lock(m->fixture->f->host.loop);
    machine_fixture_take_over(m->fixture);
    loop_unlock(m->fixture->f->host.loop);
    return true;
}

static void rig_announce(Guest *g)
{
    struct rig_machine *m = machine_of(g);

    loop_lock(m->fixture->f->host.loop);
    machine_fixture_announce(m->fixture);
    loop_unlock(m->fixture->f->host.loop);
}

static bool rig_clear(Guest *g, bool keep_ram, Error **errp)
{
    return keep_ram || guest_memory_clear(g->memory, errp);
}

/* --- the configuration --- */

static void describe(struct machine_setup *s)
{
    struct machine_config *c = &s->config;

    *s = (struct machine_setup){.tsc_khz = 1000000, .rng_slot = MACHINE_RNG_SLOT};
    *c = (struct machine_config){.name = "vm", .cpus = 1, .memory = FIXTURE_RAM, .cpu_model = "v2"};
    c->disk_count = c->net_count = 1;
    snprintf(c->disks[0].id, sizeof(c->disks[0].id), "root");
    s->disk_slot[0] = MACHINE_DISK_SLOT;
    s->disk_size[0] = DISK_SIZE;
    snprintf(c->nets[0].id, sizeof(c->nets[0].id), "net0");
    memcpy(c->nets[0].mac, machine_mac, sizeof(machine_mac));
    s->net_slot[0] = MACHINE_NIC_SLOT;
    s->cpuid.count = 1;
    c->kernel_size = 16;
    c->kernel = calloc(1, c->kernel_size);
}

static bool rig_save_config(Guest *g, VMStream *f, Error **errp)
{
    struct machine_setup *s = malloc(sizeof(*s));

    (void)g;
    describe(s);
    machine_setup_save(s, f);
    machine_setup_free(s);
    free(s);
    return !perdure_stream_error(f, errp);
}

static bool config_fits(const struct machine_setup *s, Error **errp)
{
    const struct machine_config *c = &s->config;

    if (c->memory == FIXTURE_RAM && c->disk_count == 1 && !strcmp(c->disks[0].id, "root"))
        return true;
    error_setg(errp, "this is not the machine that the rig can build");
    return false;
}

static bool check_config(VMStream *f, Error **errp)
{
    struct machine_setup *s = calloc(1, sizeof(*s));
    bool ok = machine_setup_load(s, f, errp);

    if (ok) {
        ok = config_fits(s, errp);
        machine_setup_free(s);
    }
    free(s);
    return ok;
}

static const struct guest_ops rig_ops = {
    .pause = rig_pause,
    .resume = rig_resume,
    .tracking_start = rig_tracking_start,
    .tracking_stop = rig_tracking_stop,
    .take_changed = rig_take_changed,
    .changed_pages = rig_changed_pages,
    .request = rig_request,
    .reset = rig_reset,
    .mark_disks = rig_mark_disks,
    .hold_disks = rig_hold_disks,
    .save_config = rig_save_config,
    .take_over = rig_take_over,
    .announce = rig_announce,
    .clear = rig_clear,
};

/* --- life --- */

static Block *open_journal(void *opaque, Error **errp)
{
    (void)opaque, (void)errp;
    return &memory_block_new("journal", JOURNAL_SIZE)->block;
}

static void add_disk(struct rig_machine *m)
{
    struct replication_group_options o = {.queue_limit = QUEUE_LIMIT, .open_journal = open_journal};
    static bool registered;

    if (!registered)
        replication_group_register();
    registered = true;
    m->group = replication_group_new(&o, NULL);
    assert_non_null(m->group);
    m->disk = memory_block_new("root", DISK_SIZE);
    m->top = replication_filter_new(m->group, &m->disk->block, NULL);
    assert_non_null(m->top);
}

struct rig_machine *rig_machine_new(bool source)
{
    struct rig_machine *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->source = source;
    m->hold = source ? GUEST_DISKS_HELD : GUEST_DISKS_LEFT;
    holders += source;
    m->fixture = machine_fixture_new();
    m->guest = (Guest){.ops = &rig_ops, .memory = m->fixture->f->host.memory};
    m->changed = calloc(1, bitmap_bytes(m->guest.memory->page_count));
    assert_true(ram_state_register(&m->guest, NULL));
    add_disk(m);
    machine_fixture_add_devices(m->fixture, m->top);
    if (source) {
        machine_fixture_work(m->fixture);
        forget_chance(m);
        fill_pages(m, 2, 0xa0);
        write_disk(m, DISK_OFFSET, DISK_VALUE);
        m->changes = CHANGES;
    }
    return m;
}

struct rig_machine *rig_machine_from_stream(VMStream *f, Error **errp)
{
    return check_config(f, errp) ? rig_machine_new(false) : NULL;
}

/* The disk's chain goes with its device, the group after it. */
void rig_machine_free(struct rig_machine *m)
{
    if (!m)
        return;
    holders -= m->hold == GUEST_DISKS_HELD;
    ram_state_unregister(&m->guest);
    machine_fixture_free(m->fixture);
    replication_group_free(m->group);
    free(m->changed);
    free(m);
}

Guest *rig_machine_guest(struct rig_machine *m)
{
    return &m->guest;
}

bool rig_machine_goes_on(struct rig_machine *m)
{
    if (m->paused || m->tracking || m->hold != GUEST_DISKS_HELD)
        return false;
    write_disk(m, DISK_OFFSET, DISK_VALUE); /* which is there already */
    return true;
}

bool rig_machine_ran(const struct rig_machine *m)
{
    return m->ran;
}

uint64_t rig_machine_memory_hash(const struct rig_machine *m)
{
    return m->ran ? m->memory_hash : guest_memory_hash(m->guest.memory);
}

uint64_t rig_machine_disk_hash(const struct rig_machine *m)
{
    return m->ran ? m->disk_hash : hash_disk(m);
}

uint64_t rig_machine_device_hash(const struct rig_machine *m)
{
    return m->device_hash;
}

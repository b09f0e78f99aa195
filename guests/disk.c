/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disk: drives a virtio-blk disk as fast as it goes, for so many seconds, and counts requests and how long each took.
 * For benchmarks: it polls, so what it measures is the monitor and not the cost of interrupts here. It checks what it
 * reads (guest_abi.h says what is where) and writes what it would find right.
 */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"
#include "lib/virtio_blk.h"

const char guest_name[] = "disk";

#define BUFFERS     (16ul << 20)
#define BLOCK_MAX   (1u << 20)
#define DEPTH_MAX   16
#define FLUSH_SLOT  DEPTH_MAX
#define SERVE_EVERY 4096 /* turns between two looks at the network */

static struct blk blk;
static struct {
    enum blk_type type;
    bool random;
    uint32_t block, depth, flush_every;
    uint64_t blocks; /* of the disk */
} job;

static struct {
    uint64_t sector, begun;
    bool busy;
} requests[DEPTH_MAX + 1];

static uint64_t next_block, random_state = 1;
static uint32_t in_flight, unflushed;

static uint64_t *buffer(unsigned slot)
{
    return (uint64_t *)(BUFFERS + (uintptr_t)slot * BLOCK_MAX);
}

static uint64_t choose_block(void)
{
    if (!job.random)
        return next_block++ % job.blocks;
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (random_state >> 24) % job.blocks;
}

/* --- contents --- */

static void fill(unsigned slot, uint64_t sector)
{
    for (uint32_t i = 0; i < job.block / BLK_SECTOR; i++)
        buffer(slot)[i * BLK_SECTOR / 8] = 64 * (sector + i);
}

static bool check(unsigned slot, uint64_t sector)
{
    for (uint32_t i = 0; i < job.block / BLK_SECTOR; i++) {
        uint64_t have = buffer(slot)[i * BLK_SECTOR / 8];

        if (have == 64 * (sector + i))
            continue;
        guest_fail(GUEST_ERROR_DATA, sector + i, have, 64 * (sector + i));
        print("DATA sector=%u have=%x want=%x\n", sector + i, have, 64 * (sector + i));
        return false;
    }
    return true;
}

/* --- requests --- */

static void start(unsigned slot)
{
    uint64_t sector = choose_block() * (job.block / BLK_SECTOR);

    requests[slot].sector = sector;
    requests[slot].busy = true;
    if (job.type == BLK_WRITE)
        fill(slot, sector);
    in_flight++;
    unflushed++;
    requests[slot].begun = rdtsc();
    blk_start(&blk, slot, job.type, sector, buffer(slot), job.block);
}

static void start_flush(void)
{
    in_flight++;
    unflushed = 0;
    requests[FLUSH_SLOT].busy = true;
    requests[FLUSH_SLOT].begun = rdtsc();
    blk_start(&blk, FLUSH_SLOT, BLK_FLUSH, 0, NULL, 0);
}

static void account(unsigned slot, uint64_t ns)
{
    volatile struct guest_disk_status *d = &status.disk;
    unsigned log = 63 - __builtin_clzll(ns | 256);
    unsigned bucket = 4 * log + ((ns >> (log - 2)) & 3) - GUEST_DISK_BUCKET_FIRST;

    if (slot == FLUSH_SLOT) {
        d->flushes++;
        d->flush_sum_ns += ns;
        return;
    }
    d->operations++;
    d->bytes += job.block;
    d->latency_sum_ns += ns;
    if (ns > d->latency_max_ns)
        d->latency_max_ns = ns;
    d->histogram[bucket < GUEST_DISK_BUCKETS ? bucket : GUEST_DISK_BUCKETS - 1]++;
}

/* What has completed. False: something is wrong. */
static bool take_all(void)
{
    bool ok;
    int slot;

    while ((slot = blk_take(&blk, &ok)) >= 0) {
        uint64_t now = rdtsc();

        if (!ok || slot > FLUSH_SLOT || !requests[slot].busy) {
            guest_fail(GUEST_ERROR_DISK, requests[slot].sector, slot == FLUSH_SLOT ? BLK_FLUSH : job.type, 0);
            print("DISK sector=%u: a request failed\n", requests[slot].sector);
            return false;
        }
        requests[slot].busy = false;
        in_flight--;
        account(slot, ns_of_ticks(now - requests[slot].begun));
        if (job.type == BLK_READ && !check(slot, requests[slot].sector))
            return false;
    }
    return true;
}

/* As many as go; a flush begins when all that it is for have completed, and nothing else does until it has. */
static void start_all(void)
{
    if (requests[FLUSH_SLOT].busy)
        return;
    for (unsigned slot = 0; slot < job.depth; slot++) {
        if (job.flush_every && unflushed >= job.flush_every)
            break;
        if (!requests[slot].busy)
            start(slot);
    }
    if (job.flush_every && unflushed >= job.flush_every && !in_flight)
        start_flush();
}

static void run(uint64_t ticks)
{
    uint64_t begin = rdtsc(), now = begin;

    memset((void *)&status.disk, 0, sizeof(status.disk));
    for (uint64_t turn = 0; now - begin < ticks && !status.errors; turn++) {
        start_all();
        if (!take_all())
            return;
        if (turn % SERVE_EVERY == 0)
            service_poll();
        status.heartbeat[0]++;
        now = rdtsc();
    }
    status.disk.elapsed_ns = ns_of_ticks(now - begin);
}

/* --- the report --- */

static uint64_t percentile(unsigned percent)
{
    uint64_t sum = 0, want = (status.disk.operations * percent + 99) / 100;
    unsigned i = 0;

    while (i < GUEST_DISK_BUCKETS - 1 && (sum += status.disk.histogram[i]) < want)
        i++;
    i += GUEST_DISK_BUCKET_FIRST;
    return (1ull << (i / 4)) + (uint64_t)(i % 4) * (1ull << (i / 4)) / 4;
}

static void report(void)
{
    volatile struct guest_disk_status *d = &status.disk;
    uint64_t n = d->operations ? d->operations : 1;

    print("disk: operations=%u bytes=%u flushes=%u us=%u mean_ns=%u p50_ns=%u p99_ns=%u max_ns=%u "
          "flush_mean_ns=%u\n",
          d->operations, d->bytes, d->flushes, d->elapsed_ns / 1000, d->latency_sum_ns / n, percentile(50),
          percentile(99), d->latency_max_ns, d->flushes ? d->flush_sum_ns / d->flushes : 0);
}

static bool take_options(void)
{
    uint64_t span = option_number("span", 0);
    uint64_t size = blk.sectors * BLK_SECTOR;

    job.type = option_is("op", "write") ? BLK_WRITE : BLK_READ;
    job.random = !option_is("order", "sequential");
    job.block = option_number("block", 4096);
    job.depth = option_number("depth", 1);
    job.flush_every = option_number("flush", 0);
    if (job.block < BLK_SECTOR || job.block > BLOCK_MAX || job.block % BLK_SECTOR || !job.depth ||
        job.depth > DEPTH_MAX)
        return false;
    job.blocks = (span && span < size ? span : size) / job.block;
    return job.blocks;
}

void guest_main(void)
{
    if (!blk_open(&blk, 0, -1, option_number("event_idx", 1), BLK_F_FLUSH) || !take_options()) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("disk: no virtio-blk large enough for a block, or an option out of range\n");
        return;
    }
    service_start(NULL, -1, false);
    memset(buffer(0), 0, (size_t)DEPTH_MAX * BLOCK_MAX); /* its pages are there before time counts */
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("disk: running\n");
    run(ticks_of_us(option_number("warm", 0) * 1000));
    if (!guest_quiet())
        print("disk: counting\n");
    if (!status.errors)
        run(ticks_of_us(option_number("seconds", 5) * 1000000));
    if (status.errors)
        return;
    status.disk.done = 1;
    report();
}

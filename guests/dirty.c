/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dirty: writes to so many pages a second, and measures what it loses: gaps between two turns of a loop that
 * does nothing else. For benchmarks; the host changes rate and window while it runs (struct guest_control)
 * and reads the histogram from the status block.
 */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"

const char guest_name[] = "dirty";

#define GAP_FROM_NS 8192

static uint64_t boot, start, interval, next_write, page, written;

static void reset_counters(uint64_t now)
{
    volatile struct guest_dirty_status *d = &status.dirty;

    d->gaps = d->gap_sum_ns = d->gap_max_ns = d->pages_written = 0;
    memset((void *)d->histogram, 0, sizeof(d->histogram));
    memset((void *)d->largest, 0, sizeof(d->largest));
    memset((void *)d->slow_writes, 0, sizeof(d->slow_writes));
    d->since_ns = ns_of_ticks(now - boot);
}

static void print_status(void)
{
    volatile struct guest_dirty_status *d = &status.dirty;

    print("dirty: pages=%u gaps=%u sum_us=%u max_us=%u ms=%u\n", d->pages_written, d->gaps,
          d->gap_sum_ns / 1000, d->gap_max_ns / 1000, (d->now_ns - d->since_ns) / 1000000);
    for (unsigned i = 0; i < GUEST_GAP_BUCKETS; i++)
        if (d->histogram[i])
            print("dirty: >=%u us: %u\n", (1ull << i) / 1000, d->histogram[i]);
}

static void take_control(uint64_t now)
{
    uint64_t rate = status.control.rate;

    status.control_seen = status.control.sequence;
    interval = rate ? clock_khz() * 1000 / rate : 0;
    next_write = now;
    if (status.control.pages == 0)
        status.control.pages = 1;
    if (status.control.stride == 0)
        status.control.stride = 1;
    if (status.control.reset)
        reset_counters(now);
    if (status.control.print)
        print_status();
}

static void note_gap(uint64_t now, uint64_t ns)
{
    volatile struct guest_dirty_status *d = &status.dirty;
    unsigned bucket = 63 - __builtin_clzll(ns), smallest = 0;

    d->gaps++;
    d->gap_sum_ns += ns;
    d->histogram[bucket < GUEST_GAP_BUCKETS ? bucket : GUEST_GAP_BUCKETS - 1]++;
    if (ns > d->gap_max_ns)
        d->gap_max_ns = ns;
    for (unsigned i = 1; i < GUEST_GAP_LARGEST; i++)
        if (d->largest[i].length_ns < d->largest[smallest].length_ns)
            smallest = i;
    if (ns > d->largest[smallest].length_ns) {
        d->largest[smallest].at_ns = ns_of_ticks(now - boot) - ns;
        d->largest[smallest].length_ns = ns;
    }
}

static void write_page(void)
{
    uint64_t before = rdtsc(), bucket;

    *(volatile uint64_t *)(start + page * GUEST_PAGE + written % 512 * 8) = written;
    bucket = ns_of_ticks(rdtsc() - before) / GUEST_WRITE_BUCKET_NS;
    if (bucket >= GUEST_WRITE_FROM)
        status.dirty.slow_writes[bucket < GUEST_WRITE_BUCKETS ? bucket : GUEST_WRITE_BUCKETS - 1]++;
}

/* Writes what is due. After a long gap it does not make up for more than a tenth of a second: that would
 * measure the burst. */
static void write_pages(uint64_t now)
{
    if (interval == 0)
        return;
    if ((int64_t)(now - next_write) > (int64_t)(clock_khz() * 100))
        next_write = now;
    for (unsigned i = 0; i < 64 && (int64_t)(now - next_write) >= 0; i++) {
        written++;
        write_page();
        page = (page + status.control.stride) % status.control.pages;
        status.dirty.pages_written++;
        next_write += interval;
    }
}

static void turn(uint64_t *last, uint64_t from_ticks)
{
    uint64_t now = rdtsc();

    if (now < *last) {
        guest_fail(GUEST_ERROR_CLOCK, 0, now, *last);
        print("CLOCK went back: have=%u want=%u\n", now, *last);
        *last = now;
    }
    if (now - *last >= from_ticks)
        note_gap(now, ns_of_ticks(now - *last));
    status.dirty.now_ns = ns_of_ticks(now - boot);
    status.heartbeat[0]++;
    *last = now;
    if (status.control.sequence != status.control_seen) {
        take_control(now);
        *last = rdtsc(); /* what the host asked for is not a gap */
    }
    write_pages(now);
}

static void second_main(void)
{
    for (;;) {
        status.heartbeat[1]++;
        cpu_relax();
    }
}

void guest_main(void)
{
    uint64_t last, from_ticks = clock_khz() * GAP_FROM_NS / 1000000;

    boot = rdtsc();
    start = option_number("start", 16 << 20) & ~(uint64_t)(GUEST_PAGE - 1);
    status.control.pages = option_number("pages", 1024);
    status.control.rate = option_number("rate", 1000);
    if (option_number("cpus", 1) > 1)
        status.cpus = cpu_start_second(second_main) ? 2 : 1;
    service_start(NULL, -1, false);
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("dirty: running\n");
    reset_counters(rdtsc());
    take_control(rdtsc());
    for (last = rdtsc();;) {
        turn(&last, from_ticks);
        service_poll();
    }
}

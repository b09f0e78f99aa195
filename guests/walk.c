/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * walk: increments a byte in every page round and round, and checks each page against what it wrote there a
 * round ago: a page that was lost, torn or brought back from the past is found by the guest itself within a
 * round, and by a host that looks at the bytes at any instant (guest_abi.h says what it must see).
 */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"

const char guest_name[] = "walk";

static uint64_t rate; /* ticks a page; 0: as fast as possible */
static volatile bool go;

static uint8_t *page_at(uint64_t page)
{
    return (uint8_t *)(status.walk.start + page * GUEST_PAGE);
}

static uint64_t *stamp_at(uint64_t page, uint8_t value)
{
    return (uint64_t *)(page_at(page) + guest_walk_stamp_offset(value));
}

static void torn(int cpu, uint64_t page, uint64_t have, uint64_t want)
{
    guest_fail(GUEST_ERROR_TORN, status.walk.start + page * GUEST_PAGE, have, want);
    status.error_cpu = cpu;
    print("TORN page=%x have=%x want=%x cpu=%u\n", status.walk.start + page * GUEST_PAGE, have, want,
          (uint64_t)cpu);
}

/* The stamp first: at any instant a page holds the stamp of its byte. */
static void write_page(uint64_t page, uint8_t value)
{
    *stamp_at(page, value) = guest_walk_stamp(page, value);
    barrier();
    *(volatile uint8_t *)page_at(page) = value;
}

static bool check_page(int cpu, uint64_t page, uint8_t value)
{
    if (*page_at(page) != value)
        torn(cpu, page, *page_at(page), value);
    else if (*stamp_at(page, value) != guest_walk_stamp(page, value))
        torn(cpu, page, *stamp_at(page, value), guest_walk_stamp(page, value));
    return status.errors == 0;
}

static void pace(int cpu, uint64_t *next)
{
    if (cpu == 0)
        service_poll();
    if (rate == 0)
        return;
    while ((int64_t)(rdtsc() - *next) < 0) {
        cpu_relax();
        if (cpu == 0)
            service_poll();
    }
    *next += rate;
    if ((int64_t)(rdtsc() - *next) > (int64_t)(rate * 1000)) /* after a pause: do not run after it */
        *next = rdtsc();
}

static void clear_pages(void)
{
    for (uint64_t p = 0; p < status.walk.size / GUEST_PAGE; p++) {
        memset(page_at(p), 0, GUEST_PAGE);
        *stamp_at(p, 0) = guest_walk_stamp(p, 0);
    }
}

static void walk(int cpu)
{
    uint64_t pages = status.walk.size / GUEST_PAGE / status.cpus, first = pages * cpu, next;

    next = rdtsc();
    for (uint64_t value = 1; status.errors == 0; value++) {
        status.walk.value[cpu] = value;
        for (uint64_t p = 0; p < pages; p++) {
            if (!check_page(cpu, first + p, value - 1))
                return;
            write_page(first + p, value);
            status.walk.position[cpu] = p + 1;
            status.heartbeat[cpu]++;
            pace(cpu, &next);
        }
        status.rounds[cpu]++;
    }
}

static void second_main(void)
{
    while (!go)
        cpu_relax();
    walk(1);
}

void guest_main(void)
{
    uint64_t pages_a_second = option_number("rate", 0);

    status.walk.start = option_number("start", 16 << 20) & ~(uint64_t)(GUEST_PAGE - 1);
    status.walk.size = option_number("size", 16 << 20);
    rate = pages_a_second ? clock_khz() * 1000 / pages_a_second : 0;
    clear_pages(); /* who sees the guest running may rely on them */
    if (option_number("cpus", 1) > 1) {
        if (!cpu_start_second(second_main)) {
            guest_fail(GUEST_ERROR_SETUP, 0, 1, 2);
            print("walk: the second processor did not start\n");
            return;
        }
        status.cpus = 2;
    }
    service_start(NULL, -1, false);
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("walk: running, %u pages, cpus=%u\n", status.walk.size / GUEST_PAGE, (uint64_t)status.cpus);
    go = true;
    walk(0);
}

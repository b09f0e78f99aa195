/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/io.h"

#define PIT_HZ      1193182
#define PIT_COUNTER 0x40
#define PIT_COMMAND 0x43
#define PIT_READS   10000
#define PIT_TRIES   20
#define KHZ_GUESS   2500000

static uint64_t khz;

/* KVM's own leaf, where the monitor fills it in. */
static uint64_t khz_of_cpuid(void)
{
    uint32_t r[4];

    cpuid(0x40000000, r);
    if (r[0] < 0x40000010 || r[0] > 0x40010000)
        return 0;
    cpuid(0x40000010, r);
    return r[0];
}

static unsigned pit_read(void)
{
    unsigned low;

    outb(PIT_COMMAND, 0); /* latch counter 0 */
    low = inb(PIT_COUNTER);
    return low | inb(PIT_COUNTER) << 8;
}

/* Counter 0 once down from 65536 (55 ms); its interrupt is masked. 0: it went round, since somebody else had the processor
 * for so long. */
static uint64_t measure(void)
{
    unsigned first, now, reads = 0;
    uint64_t from, to;

    outb(PIT_COMMAND, 0x30);
    outb(PIT_COUNTER, 0xff);
    outb(PIT_COUNTER, 0xff);
    do
        first = pit_read();
    while (first > 65000 && ++reads < PIT_READS); /* the first clocks load the counter */
    if (reads == PIT_READS)
        return KHZ_GUESS; /* there is no PIT: paces and times are wrong, all else works */
    from = rdtsc();
    do {
        now = pit_read();
        to = rdtsc();
    } while (now <= first && first - now < PIT_HZ / 50);
    return now <= first ? (to - from) * PIT_HZ / (first - now) / 1000 : 0;
}

/* The middle one of three: a processor that is taken away at the wrong moment spoils one. */
static uint64_t khz_of_pit(void)
{
    uint64_t k[3] = {0};

    for (unsigned n = 0, tries = 0; n < 3 && tries < PIT_TRIES; tries++) {
        k[n] = measure();
        n += k[n] != 0;
    }
    if (k[0] > k[1]) {
        uint64_t larger = k[0];

        k[0] = k[1];
        k[1] = larger;
    }
    if (k[2] < k[1])
        k[1] = k[2] > k[0] ? k[2] : k[0];
    return k[1] ? k[1] : KHZ_GUESS;
}

void clock_init(void)
{
    khz = option_number("tsc_khz", 0);
    if (khz == 0)
        khz = khz_of_cpuid();
    if (khz == 0)
        khz = khz_of_pit();
}

uint64_t clock_khz(void)
{
    return khz;
}

uint64_t ticks_of_us(uint64_t us)
{
    return us * khz / 1000;
}

uint64_t ns_of_ticks(uint64_t ticks)
{
    return ticks / khz * 1000000 + ticks % khz * 1000000 / khz;
}

void delay_us(uint64_t us)
{
    uint64_t from = rdtsc(), ticks = ticks_of_us(us);

    while (rdtsc() - from < ticks)
        cpu_relax();
}

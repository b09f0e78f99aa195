/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MC146818: date and time, and 114 bytes of CMOS memory. The time is the host's plus an offset that the guest
 * changes by setting the clock.
 *
 * Interrupts: the alarm and the one at every second, by a timer that runs only while the guest
 * wants one of them. Periodic interrupts (from 122 us on) are not there: guests have better timers for that.
 */
#include "device/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define RTC_GSI  8
#define RTC_PORT 0x70
#define RTC_SIZE 2

enum {
    RTC_SECONDS = 0,
    RTC_SECONDS_ALARM = 1,
    RTC_MINUTES = 2,
    RTC_MINUTES_ALARM = 3,
    RTC_HOURS = 4,
    RTC_HOURS_ALARM = 5,
    RTC_DAY_OF_WEEK = 6,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_A = 10,
    RTC_B = 11,
    RTC_C = 12,
    RTC_D = 13,
    RTC_CENTURY = 0x32, /* named in the FADT */
};

#define A_UPDATE_IN_PROGRESS 0x80
#define A_DIVIDER_32KHZ      0x20
#define B_SET                0x80 /* updates stopped: the guest is writing the time */
#define B_ALARM              0x20 /* the interrupt of the flag in C of the same value is enabled */
#define B_UPDATE             0x10
#define B_BINARY             0x04
#define B_24H                0x02
#define B_INTERRUPTS         (B_ALARM | B_UPDATE)
#define C_INTERRUPT          0x80
#define D_VALID              0x80
#define ALARM_ANY            0xc0
#define HOURS_PM             0x80

/* The real chip announces an update 244 us before it. */
#define UPDATE_NS (244 * 1000)

struct rtc {
    Device device;
    uint8_t index;
    uint8_t cmos[128]; /* the time's bytes are valid only while B_SET stops it */
    int64_t offset_s;  /* guest's time minus the host's */
    int64_t checked_s; /* alarms up to this second of the guest's time have rung */
    int timer;         /* the next second of the host's calendar; armed while an interrupt is enabled */
};

/* After a pause every second of it is looked at for an alarm; of a longer one the last day, in which each
 * alarm falls. */
#define CATCH_UP_S (24 * 60 * 60)

/* Not time(): that one lags behind by up to a tick, and a timer for a second would come before it. */
static int64_t host_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

static bool is_time(unsigned i)
{
    return i == RTC_SECONDS || i == RTC_MINUTES || i == RTC_HOURS ||
           (i >= RTC_DAY_OF_WEEK && i <= RTC_YEAR) || i == RTC_CENTURY;
}

static uint8_t encode(const struct rtc *r, int v)
{
    return r->cmos[RTC_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10;
}

static int decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hours(const struct rtc *r, int hours)
{
    if (r->cmos[RTC_B] & B_24H)
        return encode(r, hours);
    return encode(r, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? HOURS_PM : 0);
}

static int decode_hours(const struct rtc *r, uint8_t v)
{
    if (r->cmos[RTC_B] & B_24H)
        return decode(r, v);
    return decode(r, v & ~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

static int64_t guest_time(const struct rtc *r)
{
    return host_time() + r->offset_s;
}

static void time_to_cmos(struct rtc *r, int64_t at)
{
    time_t now = at;
    struct tm tm;
    int year;

    if (!gmtime_r(&now, &tm))
        memset(&tm, 0, sizeof(tm));
    year = tm.tm_year + 1900 > 0 ? tm.tm_year + 1900 : 0;
    r->cmos[RTC_SECONDS] = encode(r, tm.tm_sec);
    r->cmos[RTC_MINUTES] = encode(r, tm.tm_min);
    r->cmos[RTC_HOURS] = encode_hours(r, tm.tm_hour);
    r->cmos[RTC_DAY_OF_WEEK] = encode(r, tm.tm_wday + 1);
    r->cmos[RTC_DAY] = encode(r, tm.tm_mday);
    r->cmos[RTC_MONTH] = encode(r, tm.tm_mon + 1);
    r->cmos[RTC_YEAR] = encode(r, year % 100);
    r->cmos[RTC_CENTURY] = encode(r, year / 100 % 100);
}

/* Nonsense (month 77) becomes some time or other, as timegm() carries it over. */
static void time_from_cmos(struct rtc *r)
{
    struct tm tm = {
        .tm_sec = decode(r, r->cmos[RTC_SECONDS]),
        .tm_min = decode(r, r->cmos[RTC_MINUTES]),
        .tm_hour = decode_hours(r, r->cmos[RTC_HOURS]),
        .tm_mday = decode(r, r->cmos[RTC_DAY]),
        .tm_mon = decode(r, r->cmos[RTC_MONTH]) - 1,
        .tm_year = decode(r, r->cmos[RTC_YEAR]) + (decode(r, r->cmos[RTC_CENTURY]) - 19) * 100,
    };

    r->offset_s = timegm(&tm) - host_time();
}

static bool update_in_progress(const struct rtc *r)
{
    struct timespec ts;

    if (r->cmos[RTC_B] & B_SET)
        return false;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_nsec >= 1000000000 - UPDATE_NS;
}

/* --- interrupts --- */

static void update_irq(struct rtc *r)
{
    bool active = r->cmos[RTC_C] & r->cmos[RTC_B] & B_INTERRUPTS;

    r->cmos[RTC_C] = (r->cmos[RTC_C] & ~C_INTERRUPT) | (active ? C_INTERRUPT : 0);
    r->device.host->set_irq(r->device.host, RTC_GSI, active);
}

static void arm(struct rtc *r)
{
    bool ticks = (r->cmos[RTC_B] & B_INTERRUPTS) && !(r->cmos[RTC_B] & B_SET);
    struct itimerspec next = {.it_value.tv_sec = ticks ? host_time() + 1 : 0};

    timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &next, NULL);
}

static bool is_due(const struct rtc *r, unsigned alarm, unsigned field)
{
    return (r->cmos[alarm] & ALARM_ANY) == ALARM_ANY || r->cmos[alarm] == r->cmos[field];
}

/* The seconds that went by since the last tick: one, as a rule. */
static void handle_tick(void *opaque, uint32_t events)
{
    struct rtc *r = opaque;
    int64_t now = guest_time(r);
    uint64_t expirations;

    (void)events;
    if (read(r->timer, &expirations, sizeof(expirations)) < 0)
        return;
    if (r->checked_s < now - CATCH_UP_S || r->checked_s > now)
        r->checked_s = now - 1;
    while (r->checked_s < now) {
        time_to_cmos(r, ++r->checked_s);
        r->cmos[RTC_C] |= B_UPDATE;
        if (is_due(r, RTC_SECONDS_ALARM, RTC_SECONDS) && is_due(r, RTC_MINUTES_ALARM, RTC_MINUTES) &&
            is_due(r, RTC_HOURS_ALARM, RTC_HOURS))
            r->cmos[RTC_C] |= B_ALARM;
    }
    update_irq(r);
    arm(r);
}

static uint8_t read_c(struct rtc *r)
{
    uint8_t v = r->cmos[RTC_C];

    r->cmos[RTC_C] = 0;
    update_irq(r);
    return v;
}

/* --- registers --- */

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *r = opaque;

    (void)size;
    if (offset == 0)
        return 0xff;
    if (is_time(r->index) && !(r->cmos[RTC_B] & B_SET))
        time_to_cmos(r, guest_time(r));
    switch (r->index) {
    case RTC_A:
        return r->cmos[RTC_A] | (update_in_progress(r) ? A_UPDATE_IN_PROGRESS : 0);
    case RTC_C:
        return read_c(r);
    case RTC_D:
        return D_VALID;
    }
    return r->cmos[r->index];
}

static void write_b(struct rtc *r, uint8_t v)
{
    bool was_set = r->cmos[RTC_B] & B_SET, was_ticking = r->cmos[RTC_B] & B_INTERRUPTS;

    if (!was_set)
        time_to_cmos(r, guest_time(r));
    r->cmos[RTC_B] = v & (B_SET | B_INTERRUPTS | B_BINARY | B_24H);
    if (was_set && !(v & B_SET))
        time_from_cmos(r);
    if (was_set || !was_ticking)
        r->checked_s = guest_time(r);
    update_irq(r);
    arm(r);
}

static void write_cmos(struct rtc *r, uint8_t v)
{
    switch (r->index) {
    case RTC_A:
        r->cmos[RTC_A] = v & ~A_UPDATE_IN_PROGRESS;
        return;
    case RTC_B:
        write_b(r, v);
        return;
    case RTC_C:
    case RTC_D:
        return;
    }
    if (!is_time(r->index)) {
        r->cmos[r->index] = v;
        return;
    }
    /* One field set while the clock runs: the others go on from now. */
    if (!(r->cmos[RTC_B] & B_SET))
        time_to_cmos(r, guest_time(r));
    r->cmos[r->index] = v;
    if (!(r->cmos[RTC_B] & B_SET))
        time_from_cmos(r);
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *r = opaque;

    (void)size;
    if (offset == 0)
        r->index = value & 0x7f; /* bit 7 gates the NMI */
    else
        write_cmos(r, value);
}

static const struct io_ops rtc_ops = {.read = rtc_read, .write = rtc_write};

static bool rtc_post_load(void *opaque, int version, Error **errp)
{
    struct rtc *r = opaque;

    (void)version;
    /* A thousand years either way: more would overflow in the arithmetic of the calendar. */
    if (r->index < sizeof(r->cmos) && r->offset_s > -(INT64_C(1) << 35) && r->offset_s < INT64_C(1) << 35) {
        update_irq(r);
        arm(r);
        return true;
    }
    r->index = 0;
    r->offset_s = 0;
    error_setg(errp, "rtc: the state has an index or a time that cannot be");
    return false;
}

static const VMStateField rtc_fields[] = {
    VMSTATE_U8(struct rtc, index, 1),
    VMSTATE_BUFFER(struct rtc, cmos, 1),
    VMSTATE_U64(struct rtc, offset_s, 1),
    VMSTATE_U64(struct rtc, checked_s, 1),
    VMSTATE_END,
};
static const VMStateDescription rtc_vmstate = {
    .name = "rtc", .version = 1, .minimum_version = 1, .fields = rtc_fields, .post_load = rtc_post_load};

/* Battery-backed: only the registers that a reset touches. The offset stays. */
static void rtc_reset(Device *d)
{
    struct rtc *r = (struct rtc *)d;

    r->index = 0;
    r->cmos[RTC_A] = A_DIVIDER_32KHZ | 6;
    r->cmos[RTC_B] = B_24H;
    r->cmos[RTC_C] = 0;
    update_irq(r);
    arm(r);
}

static void rtc_destroy(Device *d)
{
    struct rtc *r = (struct rtc *)d;

    d->host->unmap(d->host, IO_PORT, RTC_PORT);
    perdure_vmstate_unregister(&rtc_vmstate, r);
    loop_remove_fd(d->host->loop, r->timer);
    close(r->timer);
    free(r);
}

static const struct device_class rtc_class = {.name = "rtc", .reset = rtc_reset, .destroy = rtc_destroy};

Device *rtc_new(struct device_host *h, Error **errp)
{
    struct rtc *r = calloc(1, sizeof(*r));

    if (!r) {
        error_setg(errp, "rtc: out of memory");
        return NULL;
    }
    r->device = (Device){.class = &rtc_class, .id = "rtc", .host = h};
    r->timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (r->timer < 0) {
        error_setg_errno(errp, errno, "rtc: cannot make a timer");
        goto free_rtc;
    }
    if (!loop_add_fd(h->loop, r->timer, EPOLLIN, handle_tick, r, errp))
        goto close_timer;
    rtc_reset(&r->device);
    if (!h->map(h, IO_PORT, RTC_PORT, RTC_SIZE, &rtc_ops, r, errp))
        goto remove_timer;
    if (!perdure_vmstate_register(&rtc_vmstate, 0, r, errp))
        goto unmap;
    return &r->device;

unmap:
    h->unmap(h, IO_PORT, RTC_PORT);
remove_timer:
    loop_remove_fd(h->loop, r->timer);
close_timer:
    close(r->timer);
free_rtc:
    free(r);
    return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MC146818: date and time, and 114 bytes of CMOS memory. The time is the host's plus an offset that the guest
 * changes by setting the clock. No interrupts: guests read the time at boot and keep it themselves.
 */
#include "device/devices.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RTC_PORT 0x70
#define RTC_SIZE 2

enum {
    RTC_SECONDS = 0,
    RTC_MINUTES = 2,
    RTC_HOURS = 4,
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
#define B_BINARY             0x04
#define B_24H                0x02
#define D_VALID              0x80
#define HOURS_PM             0x80

/* The real chip announces an update 244 us before it. */
#define UPDATE_NS (244 * 1000)

struct rtc {
    Device device;
    uint8_t index;
    uint8_t cmos[128]; /* the time's bytes are valid only while B_SET stops it */
    int64_t offset_s;  /* guest's time minus the host's */
};

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

static void time_to_cmos(struct rtc *r)
{
    time_t now = time(NULL) + r->offset_s;
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

    r->offset_s = timegm(&tm) - time(NULL);
}

static bool update_in_progress(const struct rtc *r)
{
    struct timespec ts;

    if (r->cmos[RTC_B] & B_SET)
        return false;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_nsec >= 1000000000 - UPDATE_NS;
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *r = opaque;

    (void)size;
    if (offset == 0)
        return 0xff;
    if (is_time(r->index) && !(r->cmos[RTC_B] & B_SET))
        time_to_cmos(r);
    switch (r->index) {
    case RTC_A:
        return r->cmos[RTC_A] | (update_in_progress(r) ? A_UPDATE_IN_PROGRESS : 0);
    case RTC_C:
        return 0;
    case RTC_D:
        return D_VALID;
    }
    return r->cmos[r->index];
}

static void write_b(struct rtc *r, uint8_t v)
{
    bool was_set = r->cmos[RTC_B] & B_SET;

    if (!was_set)
        time_to_cmos(r);
    r->cmos[RTC_B] = v & (B_SET | B_BINARY | B_24H);
    if (was_set && !(v & B_SET))
        time_from_cmos(r);
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
        time_to_cmos(r);
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
    if (r->index < sizeof(r->cmos) && r->offset_s > -(INT64_C(1) << 35) && r->offset_s < INT64_C(1) << 35)
        return true;
    r->index = 0;
    r->offset_s = 0;
    error_setg(errp, "rtc: the state has an index or a time that cannot be");
    return false;
}

static const VMStateField rtc_fields[] = {
    VMSTATE_U8(struct rtc, index, 1),
    VMSTATE_BUFFER(struct rtc, cmos, 1),
    VMSTATE_U64(struct rtc, offset_s, 1),
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
}

static void rtc_destroy(Device *d)
{
    struct rtc *r = (struct rtc *)d;

    d->host->unmap(d->host, IO_PORT, RTC_PORT);
    perdure_vmstate_unregister(&rtc_vmstate, r);
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
    rtc_reset(&r->device);
    if (!h->map(h, IO_PORT, RTC_PORT, RTC_SIZE, &rtc_ops, r, errp))
        goto free_rtc;
    if (!perdure_vmstate_register(&rtc_vmstate, 0, r, errp))
        goto unmap;
    return &r->device;

unmap:
    h->unmap(h, IO_PORT, RTC_PORT);
free_rtc:
    free(r);
    return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The small platform devices: power management, and the clock of the day.
 */
#include "device_fixture.h"

#define PM1_POWER_BUTTON (1u << 8)

static int setup(void **state)
{
    *state = fixture_new();
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    return 0;
}

static void test_power_button(void **state)
{
    struct fixture *f = *state;
    Device *pm = pm_new(&f->host, NULL);

    pm_power_button(pm);
    assert_false(f->irq[PM_SCI_GSI]);
    bus_write(f, IO_PORT, PM_PM1A_EVENT + 2, PM1_POWER_BUTTON, 2);
    assert_true(f->irq[PM_SCI_GSI]);
    assert_int_equal(bus_read(f, IO_PORT, PM_PM1A_EVENT, 2), PM1_POWER_BUTTON);
    assert_int_equal(bus_read(f, IO_PORT, PM_PM1A_EVENT, 4), PM1_POWER_BUTTON | PM1_POWER_BUTTON << 16);
    /* Another bit written does not clear it; its own does. */
    bus_write(f, IO_PORT, PM_PM1A_EVENT, 1, 2);
    assert_true(f->irq[PM_SCI_GSI]);
    bus_write(f, IO_PORT, PM_PM1A_EVENT, PM1_POWER_BUTTON, 2);
    assert_false(f->irq[PM_SCI_GSI]);
    assert_int_equal(bus_read(f, IO_PORT, PM_PM1A_EVENT, 2), 0);
    device_destroy(pm);
}

static void test_requests(void **state)
{
    struct fixture *f = *state;
    Device *pm = pm_new(&f->host, NULL), *host = pci_host_new(&f->host, NULL);

    /* Another sleep type does nothing. */
    bus_write(f, IO_PORT, PM_PM1A_CONTROL, 1u << 13 | 1u << 10, 2);
    assert_int_equal(f->requests, 0);
    bus_write(f, IO_PORT, PM_PM1A_CONTROL, 1u << 13 | PM_S5_TYPE << 10, 2);
    assert_int_equal(f->request, GUEST_REQUEST_POWEROFF);
    /* ACPI is on and cannot be switched off; the trigger reads as zero. */
    assert_int_equal(bus_read(f, IO_PORT, PM_PM1A_CONTROL, 2), 1 | PM_S5_TYPE << 10);

    bus_write(f, IO_PORT, PM_PANIC_PORT, 0, 1);
    assert_int_equal(f->request, GUEST_REQUEST_PANIC);
    outb(f, 0x64, 0xfe);
    assert_int_equal(f->request, GUEST_REQUEST_RESET);
    assert_int_equal(f->requests, 3);
    /* Linux: first the kind, then the kind with the trigger. */
    outb(f, 0xcf9, 0x02);
    assert_int_equal(f->requests, 3);
    outb(f, 0xcf9, 0x06);
    assert_int_equal(f->requests, 4);
    assert_int_equal(f->request, GUEST_REQUEST_RESET);
    device_destroy(pm);
    device_destroy(host);
}

static uint32_t pm_timer(struct fixture *f)
{
    return bus_read(f, IO_PORT, PM_TIMER, 4);
}

static void test_timer(void **state)
{
    struct fixture *f = *state;
    Device *pm = pm_new(&f->host, NULL);
    uint32_t before = pm_timer(f), after, loaded;
    VMStream *saved, *again;

    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    after = pm_timer(f);
    assert_in_range(after - before, 20 * 3579, 2000 * 3579);

    /* A loaded state stands still, and is what was saved, until the guest goes on from it. */
    saved = state_save();
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    pm->class->take_over(pm);
    loaded = pm_timer(f);
    assert_in_range(loaded - after, 0, 200 * 3579);
    assert_true(pm_timer(f) >= loaded);
    perdure_stream_close(saved);
    perdure_stream_close(again);
    device_destroy(pm);
}

static uint8_t cmos(struct fixture *f, uint8_t index)
{
    outb(f, 0x70, index);
    return inb(f, 0x71);
}

static void set_cmos(struct fixture *f, uint8_t index, uint8_t value)
{
    outb(f, 0x70, index);
    outb(f, 0x71, value);
}

static int from_bcd(uint8_t v)
{
    return (v >> 4) * 10 + (v & 15);
}

static time_t guest_time(struct fixture *f)
{
    struct tm tm = {.tm_sec = from_bcd(cmos(f, 0)),
                    .tm_min = from_bcd(cmos(f, 2)),
                    .tm_hour = from_bcd(cmos(f, 4)),
                    .tm_mday = from_bcd(cmos(f, 7)),
                    .tm_mon = from_bcd(cmos(f, 8)) - 1,
                    .tm_year = from_bcd(cmos(f, 9)) + from_bcd(cmos(f, 0x32)) * 100 - 1900};

    return timegm(&tm);
}

static void test_rtc(void **state)
{
    struct fixture *f = *state;
    Device *rtc = rtc_new(&f->host, NULL);
    VMStream *saved, *again;

    assert_in_range(guest_time(f) - time(NULL) + 5, 0, 10);
    assert_int_equal(cmos(f, 13), 0x80);

    /* The guest sets 2001-02-03 04:05:06, in 24-hour BCD, updates stopped. */
    set_cmos(f, 11, 0x82);
    set_cmos(f, 0, 0x06);
    set_cmos(f, 2, 0x05);
    set_cmos(f, 4, 0x04);
    set_cmos(f, 7, 0x03);
    set_cmos(f, 8, 0x02);
    set_cmos(f, 9, 0x01);
    set_cmos(f, 0x32, 0x20);
    set_cmos(f, 11, 0x02);
    assert_in_range(guest_time(f) - 981173106 + 2, 0, 7);
    set_cmos(f, 0x40, 0xab);

    saved = state_save();
    rtc->class->reset(rtc);
    set_cmos(f, 0x40, 0);
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    assert_in_range(guest_time(f) - 981173106 + 2, 0, 9);
    assert_int_equal(cmos(f, 0x40), 0xab);

    /* 12-hour and binary: ten at night is 10 and the afternoon bit. */
    set_cmos(f, 11, 0x84);
    set_cmos(f, 4, 10 | 0x80);
    set_cmos(f, 11, 0x04);
    assert_int_equal(cmos(f, 4), 10 | 0x80);
    perdure_stream_close(saved);
    perdure_stream_close(again);
    device_destroy(rtc);
}

static bool rtc_irq(struct fixture *f)
{
    bool level;

    loop_lock(f->host.loop);
    level = f->irq[8];
    loop_unlock(f->host.loop);
    return level;
}

static void test_rtc_interrupts(void **state)
{
    struct fixture *f = *state;
    Device *rtc = rtc_new(&f->host, NULL);
    int soon;

    assert_true(loop_start(f->host.loop, NULL));
    /* Every second. */
    set_cmos(f, 11, 0x12);
    assert_false(rtc_irq(f));
    eventually(rtc_irq(f));
    assert_int_equal(cmos(f, 12), 0x90);
    assert_false(rtc_irq(f));
    assert_int_equal(cmos(f, 12), 0);
    /* Two seconds from now, in whatever minute of whatever hour. */
    set_cmos(f, 11, 0x02);
    soon = (from_bcd(cmos(f, 0)) + 2) % 60;
    set_cmos(f, 1, soon / 10 << 4 | soon % 10);
    set_cmos(f, 3, 0xff);
    set_cmos(f, 5, 0xff);
    set_cmos(f, 11, 0x22);
    eventually(rtc_irq(f));
    assert_int_equal(cmos(f, 12) & 0xa0, 0xa0);
    assert_false(rtc_irq(f));
    device_destroy(rtc);
}

static void test_noise(void **state)
{
    struct fixture *f = *state;
    Device *pm = pm_new(&f->host, NULL), *rtc = rtc_new(&f->host, NULL);

    srand(2);
    for (int i = 0; i < 50000; i++) {
        uint16_t port = rand() & 1 ? PM_PM1A_EVENT + rand() % 12 : 0x70 + rand() % 2;

        if (rand() & 1)
            bus_write(f, IO_PORT, port, rand(), 1 << rand() % 3);
        else
            bus_read(f, IO_PORT, port, 1 << rand() % 3);
    }
    device_destroy(pm);
    device_destroy(rtc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power_button, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rtc, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rtc_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };

    return cmocka_run_group_tests_name("pm", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power management: the ACPI fixed hardware, and ways in which the guest ends itself: S5, reset by the
 * keyboard controller's command port, and the panic port. (0xcf9 lies among the ports of pci_host.c.)
 *
 * The PM timer counts 3.579545 MHz of guest time. Guest time is a sum of what was counted before (saved) and
 * of the host's clock since; a loaded state stands still until the guest runs on from it, so that a takeover
 * continues where the epoch was and never goes back.
 */
#include "device/devices.h"

#include <stdlib.h>

#include "base/task.h"

#define PM_TIMER_HZ 3579545

/* PM1 status and enable bits */
#define PM1_TIMER_OVERFLOW (1u << 0)
#define PM1_GLOBAL_LOCK    (1u << 5)
#define PM1_POWER_BUTTON   (1u << 8)
#define PM1_SLEEP_BUTTON   (1u << 9)
#define PM1_RTC            (1u << 10)
#define PM1_WAKE           (1u << 15)
#define PM1_STATUS_BITS                                                                                      \
    (PM1_TIMER_OVERFLOW | PM1_GLOBAL_LOCK | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC | PM1_WAKE)
#define PM1_ENABLE_BITS (PM1_GLOBAL_LOCK | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)

/* PM1 control bits */
#define PM1_SCI_EN           (1u << 0)
#define PM1_SLEEP_TYPE_SHIFT 10
#define PM1_SLEEP_EN         (1u << 13)

#define KBC_COMMAND_PORT 0x64
#define KBC_PULSE_RESET  0xfe
#define KBC_OUTPUT_EMPTY 0x00

struct pm {
    Device device;
    uint16_t status, enable, control;
    uint64_t timer_ns; /* guest time at since */
    int64_t since;     /* host's clock; TIME_NEVER: stands still. Not saved */
};

static void count(struct pm *p)
{
    int64_t now = clock_now();

    if (p->since != TIME_NEVER && now > p->since)
        p->timer_ns += now - p->since;
    if (p->since != TIME_NEVER)
        p->since = now;
}

static uint32_t timer_value(struct pm *p)
{
    /* A guest that reads the timer runs, whoever forgot to say so. */
    if (p->since == TIME_NEVER)
        p->since = clock_now();
    count(p);
    return (unsigned __int128)p->timer_ns * PM_TIMER_HZ / NS_PER_S;
}

static void update_sci(struct pm *p)
{
    p->device.host->set_irq(p->device.host, PM_SCI_GSI, p->status & p->enable & PM1_ENABLE_BITS);
}

static uint64_t event_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pm *p = opaque;
    uint32_t both = p->status | (uint32_t)p->enable << 16;

    (void)size;
    return both >> (8 * offset);
}

/* A byte, a word or both registers at once: every byte that was written counts by itself. */
static void event_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pm *p = opaque;
    uint32_t mask = (size >= 4 ? UINT32_MAX : (1u << (8 * size)) - 1) << (8 * offset);
    uint32_t v = (uint32_t)value << (8 * offset) & mask;

    p->status &= ~v; /* writing a one clears it */
    p->enable = (p->enable & ~(mask >> 16)) | (v >> 16 & PM1_ENABLE_BITS);
    update_sci(p);
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pm *p = opaque;

    (void)size;
    return p->control >> (8 * offset);
}

static void control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pm *p = opaque;
    uint16_t mask = (size >= 2 ? 0xffff : 0xff) << (8 * offset);
    uint16_t v = (p->control & ~mask) | ((value << (8 * offset)) & mask);

    /* SLP_EN reads as zero; SCI_EN: there is no mode other than ACPI. */
    p->control = (v & ~PM1_SLEEP_EN) | PM1_SCI_EN;
    if ((v & PM1_SLEEP_EN) && (v >> PM1_SLEEP_TYPE_SHIFT & 7) == PM_S5_TYPE)
        p->device.host->request(p->device.host, GUEST_REQUEST_POWEROFF);
}

static uint64_t timer_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return timer_value(opaque) >> (8 * offset);
}

static void ignore_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque, (void)offset, (void)value, (void)size;
}

static uint64_t kbc_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return KBC_OUTPUT_EMPTY;
}

static void kbc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pm *p = opaque;

    (void)offset, (void)size;
    if ((uint8_t)value == KBC_PULSE_RESET)
        p->device.host->request(p->device.host, GUEST_REQUEST_RESET);
}

static uint64_t panic_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return 0;
}

static void panic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pm *p = opaque;

    (void)offset, (void)value, (void)size;
    p->device.host->request(p->device.host, GUEST_REQUEST_PANIC);
}

static const struct {
    uint16_t port, size;
    struct io_ops ops;
} regions[] = {
    {PM_PM1A_EVENT, 4, {event_read, event_write}}, {PM_PM1A_CONTROL, 2, {control_read, control_write}},
    {PM_TIMER, 4, {timer_read, ignore_write}},     {KBC_COMMAND_PORT, 1, {kbc_read, kbc_write}},
    {PM_PANIC_PORT, 1, {panic_read, panic_write}},
};
#define REGIONS (sizeof(regions) / sizeof(regions[0]))

static bool pm_pre_save(void *opaque, Error **errp)
{
    (void)errp;
    count(opaque);
    return true;
}

static bool pm_post_load(void *opaque, int version, Error **errp)
{
    struct pm *p = opaque;

    (void)version, (void)errp;
    p->status &= PM1_STATUS_BITS;
    p->enable &= PM1_ENABLE_BITS;
    p->control = (p->control & ~PM1_SLEEP_EN) | PM1_SCI_EN;
    p->since = TIME_NEVER;
    update_sci(p);
    return true;
}

static const VMStateField pm_fields[] = {
    VMSTATE_U16(struct pm, status, 1),
    VMSTATE_U16(struct pm, enable, 1),
    VMSTATE_U16(struct pm, control, 1),
    VMSTATE_U64(struct pm, timer_ns, 1),
    VMSTATE_END,
};
static const VMStateDescription pm_vmstate = {.name = "pm",
                                              .version = 1,
                                              .minimum_version = 1,
                                              .fields = pm_fields,
                                              .pre_save = pm_pre_save,
                                              .post_load = pm_post_load};

static void pm_reset(Device *d)
{
    struct pm *p = (struct pm *)d;

    p->status = p->enable = 0;
    p->control = PM1_SCI_EN;
    p->timer_ns = 0;
    p->since = clock_now();
    update_sci(p);
}

static void pm_take_over(Device *d)
{
    struct pm *p = (struct pm *)d;

    if (p->since == TIME_NEVER)
        p->since = clock_now();
}

static void unmap_regions(struct device_host *h, unsigned n)
{
    while (n--)
        h->unmap(h, IO_PORT, regions[n].port);
}

static void pm_destroy(Device *d)
{
    unmap_regions(d->host, REGIONS);
    perdure_vmstate_unregister(&pm_vmstate, d);
    free(d);
}

static const struct device_class pm_class = {
    .name = "pm", .reset = pm_reset, .take_over = pm_take_over, .destroy = pm_destroy};

void pm_power_button(Device *pm)
{
    struct pm *p = (struct pm *)pm;

    p->status |= PM1_POWER_BUTTON;
    update_sci(p);
}

Device *pm_new(struct device_host *h, Error **errp)
{
    struct pm *p = calloc(1, sizeof(*p));
    unsigned mapped = 0;

    if (!p) {
        error_setg(errp, "pm: out of memory");
        return NULL;
    }
    p->device = (Device){.class = &pm_class, .id = "pm", .host = h};
    while (mapped < REGIONS) {
        if (!h->map(h, IO_PORT, regions[mapped].port, regions[mapped].size, &regions[mapped].ops, p, errp))
            goto undo;
        mapped++;
    }
    if (!perdure_vmstate_register(&pm_vmstate, 0, p, errp))
        goto undo;
    pm_reset(&p->device);
    return &p->device;

undo:
    unmap_regions(h, mapped);
    free(p);
    return NULL;
}

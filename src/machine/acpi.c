/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/acpi.h"
#include "machine/dsdt.h"
#include "base/endian.h"
#include "device/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE    36u
#define RSDP_SIZE      36u
#define FADT_SIZE      268u
#define IOAPIC_ADDRESS 0xfec00000u
#define LAPIC_ADDRESS  0xfee00000u
#define RESET_PORT     0xcf9
#define RESET_VALUE    6
#define SCI_LEVEL_HIGH 0xd /* trigger level, polarity active high */

/* FADT flags: WBINVD works, C1, no sleep button, 32-bit timer, reset register; the power button is fixed
 * hardware (flag clear). */
#define FADT_FLAGS (1u << 0 | 1u << 2 | 1u << 5 | 1u << 8 | 1u << 10)
/* Boot flags: there are legacy devices, no VGA; no 8042 to probe for. */
#define FADT_BOOT_FLAGS (1u << 0 | 1u << 2)

struct builder {
    uint8_t *buf;
    size_t at;
};

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;

    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static uint8_t *begin(struct builder *b, const char *signature, uint8_t revision, size_t size)
{
    uint8_t *t;

    b->at = (b->at + 15) & ~(size_t)15;
    t = b->buf + b->at;
    memset(t, 0, size);
    memcpy(t, signature, 4);
    t[8] = revision;
    memcpy(t + 10, "PERDUR", 6);
    memcpy(t + 16, "PERDURE ", 8);
    le32_put(t + 24, 1);
    memcpy(t + 28, "PRDR", 4);
    le32_put(t + 32, 1);
    b->at += size;
    return t;
}

/* Address of the finished table, which ends where the next begins. */
static uint64_t finish(struct builder *b, uint8_t *t)
{
    size_t size = (size_t)(b->buf + b->at - t);

    le32_put(t + 4, (uint32_t)size);
    t[9] = 0;
    t[9] = (uint8_t)-sum(t, size);
    return ACPI_BASE + (uint64_t)(t - b->buf);
}

/* A generic address structure of an I/O port. */
static void put_port(uint8_t *p, uint16_t port, uint8_t bytes)
{
    p[0] = 1;
    p[1] = (uint8_t)(bytes * 8);
    p[2] = 0;
    p[3] = bytes == 4 ? 3 : bytes;
    le64_put(p + 4, port);
}

static uint64_t build_dsdt(struct builder *b)
{
    uint8_t *t;

    b->at = (b->at + 15) & ~(size_t)15;
    t = b->buf + b->at;
    memcpy(t, dsdt, sizeof(dsdt));
    b->at += sizeof(dsdt);
    return finish(b, t);
}

static uint64_t build_fadt(struct builder *b, uint64_t dsdt_address)
{
    uint8_t *t = begin(b, "FACP", 5, FADT_SIZE);

    le32_put(t + 40, (uint32_t)dsdt_address);
    le16_put(t + 46, PM_SCI_GSI);
    le32_put(t + 56, PM_PM1A_EVENT);
    le32_put(t + 64, PM_PM1A_CONTROL);
    le32_put(t + 76, PM_TIMER);
    t[88] = 4;                /* event block */
    t[89] = 2;                /* control */
    t[91] = 4;                /* timer */
    le16_put(t + 96, 0xffff); /* C2 and C3: none */
    le16_put(t + 98, 0xffff);
    t[108] = 0x32; /* the RTC's century register */
    le16_put(t + 109, FADT_BOOT_FLAGS);
    le32_put(t + 112, FADT_FLAGS);
    put_port(t + 116, RESET_PORT, 1);
    t[128] = RESET_VALUE;
    le64_put(t + 140, dsdt_address);
    put_port(t + 148, PM_PM1A_EVENT, 4);
    put_port(t + 172, PM_PM1A_CONTROL, 2);
    put_port(t + 208, PM_TIMER, 4);
    return finish(b, t);
}

static uint8_t *append(struct builder *b, size_t size)
{
    uint8_t *p = b->buf + b->at;

    memset(p, 0, size);
    p[1] = (uint8_t)size;
    b->at += size;
    return p;
}

static uint64_t build_madt(struct builder *b, unsigned cpus)
{
    uint8_t *t = begin(b, "APIC", 3, HEADER_SIZE + 8), *p;

    le32_put(t + 36, LAPIC_ADDRESS);
    le32_put(t + 40, 1); /* there are PICs too */
    for (unsigned i = 0; i < cpus; i++) {
        p = append(b, 8); /* local APIC */
        p[2] = p[3] = (uint8_t)i;
        le32_put(p + 4, 1);
    }
    p = append(b, 12); /* IOAPIC, from GSI 0; ISA interrupts are identity mapped */
    p[0] = 1;
    le32_put(p + 4, IOAPIC_ADDRESS);
    p = append(b, 10); /* the SCI is level triggered */
    p[0] = 2;
    p[3] = PM_SCI_GSI;
    le32_put(p + 4, PM_SCI_GSI);
    le16_put(p + 8, SCI_LEVEL_HIGH);
    p = append(b, 6); /* NMI on LINT1 of all */
    p[0] = 4;
    p[2] = 0xff;
    p[5] = 1;
    return finish(b, t);
}

static uint64_t build_xsdt(struct builder *b, uint64_t fadt, uint64_t madt)
{
    uint8_t *t = begin(b, "XSDT", 1, HEADER_SIZE + 16);

    le64_put(t + 36, fadt);
    le64_put(t + 44, madt);
    return finish(b, t);
}

static void build_rsdp(uint8_t *p, uint64_t xsdt)
{
    memset(p, 0, RSDP_SIZE);
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "PERDUR", 6);
    p[15] = 2;
    le32_put(p + 20, RSDP_SIZE);
    le64_put(p + 24, xsdt);
    p[8] = (uint8_t)-sum(p, 20);
    p[32] = (uint8_t)-sum(p, RSDP_SIZE);
}

size_t acpi_build(uint8_t *buf, unsigned cpus)
{
    struct builder b = {.buf = buf, .at = RSDP_SIZE};
    uint64_t fadt = build_fadt(&b, build_dsdt(&b));
    uint64_t madt = build_madt(&b, cpus);

    build_rsdp(buf, build_xsdt(&b, fadt, madt));
    return b.at;
}

bool acpi_load(GuestMemory *m, unsigned cpus, Error **errp)
{
    uint8_t *buf = calloc(1, ACPI_SIZE);
    bool ok;

    if (!buf) {
        error_setg_errno(errp, ENOMEM, "ACPI tables");
        return false;
    }
    ok = guest_memory_write(m, ACPI_BASE, buf, acpi_build(buf, cpus));
    if (!ok)
        error_setg(errp, "the guest has too little memory for its ACPI tables");
    free(buf);
    return ok;
}

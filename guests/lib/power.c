/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/cmdline.h"
#include "lib/io.h"
#include "lib/pci.h"
#include "lib/power.h"

#define PM1A_CONTROL 0x604
#define SLP_EN       0x2000
#define PANIC        0x510
#define PIIX4_PM     0x71138086u

/* A PIIX4 that no firmware has set up (our -bios image under QEMU) gets its registers where everyone expects
 * them. */
static void enable_piix4(void)
{
    struct pci_device pm;

    if (!pci_find(PIIX4_PM, 0, &pm) || (pci_read8(&pm, 0x80) & 1))
        return;
    pci_write32(&pm, 0x40, (PM1A_CONTROL & 0xff00) | 1);
    pci_write8(&pm, 0x80, 1);
}

void power_off(void)
{
    uint16_t port = option_number("pm", PM1A_CONTROL);
    uint32_t value = option_number("pm_value", 0);

    enable_piix4();
    if (value) {
        outw(port, value);
        return;
    }
    outw(port, 5 << 10 | SLP_EN); /* S5 as Perdure has it */
    outw(port, SLP_EN);           /* and as a PIIX4 has it */
}

void power_reset(void)
{
    outb(0xcf9, 2);
    outb(0xcf9, 6);
}

void power_reset_keyboard(void)
{
    outb(0x64, 0xfe);
}

void power_panic(void)
{
    outb(PANIC, 1);
}

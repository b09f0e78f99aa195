/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI tables: RSDP, XSDT, FADT, MADT, DSDT (dsdt.dsl), where the firmware of a PC has them.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include "guest/memory.h"

#define ACPI_BASE 0xe0000u /* the RSDP; the tables follow */
#define ACPI_SIZE 0x20000u

/* Fills buf (ACPI_SIZE bytes) with what lies at ACPI_BASE; returns the bytes used. cpus: 1 to
 * MACHINE_CPUS_MAX. */
size_t acpi_build(uint8_t *buf, unsigned cpus);
bool acpi_load(GuestMemory *m, unsigned cpus, Error **errp);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options of the kernel command line, key=value; guest_abi.h lists them. From hvm_start_info, or under a
 * -bios image from fw_cfg. */
#ifndef GUESTS_LIB_CMDLINE_H
#define GUESTS_LIB_CMDLINE_H

#include <stdbool.h>
#include <stdint.h>

void cmdline_init(void);
const char *cmdline(void);
/* The text behind "key=" (it ends at a blank or the end), or NULL. */
const char *option(const char *key);
/* Decimal or 0x, with K, M or G. */
uint64_t option_number(const char *key, uint64_t otherwise);
bool option_is(const char *key, const char *value);
/* Four numbers with dots; false when missing or malformed. In network byte order. */
bool option_ipv4(const char *key, uint8_t ip[4]);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COM1, polled. A port access costs 15 us on a software-paged KVM: print little. */
#ifndef GUESTS_LIB_CONSOLE_H
#define GUESTS_LIB_CONSOLE_H

#include <stdint.h>

void console_init(void);
/* %s (const char *), %u %x (both uint64_t), %d (int64_t), %c (int). Any processor. */
void print(const char *format, ...);

#endif

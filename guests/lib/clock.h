/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time is the TSC. It may jump ahead while the machine is paused or moves, and must never go back. */
#ifndef GUESTS_LIB_CLOCK_H
#define GUESTS_LIB_CLOCK_H

#include <stdint.h>

void clock_init(void);
uint64_t clock_khz(void);
uint64_t ticks_of_us(uint64_t us);
uint64_t ns_of_ticks(uint64_t ticks);
/* Spins. */
void delay_us(uint64_t us);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every way that a guest ends. */
#ifndef GUESTS_LIB_POWER_H
#define GUESTS_LIB_POWER_H

void power_off(void);
void power_reset(void);
void power_reset_keyboard(void);
void power_panic(void);

#endif

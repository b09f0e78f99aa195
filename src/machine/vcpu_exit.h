/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a processor came out of the guest for. Called on its own thread only.
 */
#ifndef MACHINE_VCPU_EXIT_H
#define MACHINE_VCPU_EXIT_H

#include "machine/vcpu.h"

/* false: it cannot go on; the owner has been told. */
bool vcpu_serve_exit(struct vcpu *v);
/* Registers to the log, one text to the owner; the processor is held from here. */
void vcpu_report_failure(struct vcpu *v, const char *what, int errnum);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Processors and interrupts. Vectors CPU_VECTOR(i), i < CPU_VECTORS, count into one counter a processor and
 * vector and end themselves; the last one is the LAPIC timer's in deadline mode. Nothing else happens at
 * interrupt time: the work is done by whoever sees the counter.
 */
#ifndef GUESTS_LIB_CPU_H
#define GUESTS_LIB_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define CPU_VECTORS   16
#define CPU_VECTOR(i) (0x30 + (i))
#define CPU_TOTAL     14 /* not a vector: counts all of them */
#define CPU_DEADLINE  (CPU_VECTORS - 1)

/* First of all: task segments (ports), interrupt tables. */
void cpu_init(void);
/* Enables this processor's LAPIC. */
void cpu_apic_enable(void);
/* Starts the second processor at run, its LAPIC enabled; false: it did not come. */
bool cpu_start_second(void (*run)(void));
/* How often vector i came to that processor. */
volatile uint64_t *cpu_irq_count(int cpu, unsigned i);
/* Sleeps until an interrupt, if *counter still is seen. */
void cpu_halt(volatile uint64_t *counter, uint64_t seen);
/* LAPIC timer of this processor, hz ticks a second at CPU_VECTOR(i); deadline: by the TSC, at CPU_DEADLINE.
 */
void cpu_timer_periodic(unsigned i, unsigned hz);
bool cpu_has_deadline(void);
void cpu_timer_deadline(unsigned hz);
void cpu_send_ipi(int cpu, unsigned i);
/* Loses the interrupt table and makes a fault: the processor resets. */
void cpu_triple_fault(void) __attribute__((noreturn));

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/clock.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/status.h"
#include "lib/string.h"

#define APIC            0xfee00000u
#define APIC_SPURIOUS   0x0f0
#define APIC_ICR        0x300
#define APIC_ICR_TO     0x310
#define APIC_TIMER      0x320
#define APIC_LINT0      0x350
#define APIC_INITIAL    0x380
#define APIC_CURRENT    0x390
#define APIC_DIVIDE     0x3e0
#define APIC_MASKED     0x10000
#define ICR_INIT        0x4500
#define ICR_STARTUP     0x4600
#define ICR_FIXED       0x4000
#define TIMER_PERIODIC  0x20000
#define TIMER_DEADLINE  0x40000
#define TRAMPOLINE      0x8000
#define TASK_STRIDE     0x3000
#define TASK_BITMAP     0x68
#define TASK_END        0x2068
#define KERNEL_STACK    16384
#define SPURIOUS_VECTOR 0xff
#define GATE_INTERRUPT  0x8e00

/* start.S */
extern char tasks[], idts[], kernel_stacks[], irq_stubs[], exception_stubs[], deadline_stub_0[],
    deadline_stub_1[];
extern const char trampoline[], trampoline_end[];
extern volatile uint64_t irq_counts[], deadline_interval, fatal_frame[4];
void cpu_started(void) __attribute__((noreturn));
void fatal_exception(void) __attribute__((noreturn));

static void (*volatile second)(void);
static volatile bool second_runs;

static void set_gate(char *idt, unsigned vector, uintptr_t to)
{
    uint64_t gate[2];

    gate[0] =
        (to & 0xffff) | 0x18u << 16 | (uint64_t)GATE_INTERRUPT << 32 | (uint64_t)(to >> 16 & 0xffff) << 48;
    gate[1] = 0;
    memcpy(idt + vector * 16, gate, 16);
}

static void set_tables(int cpu)
{
    char *task = tasks + cpu * TASK_STRIDE, *idt = idts + cpu * 4096;
    uint64_t stack = (uintptr_t)kernel_stacks + (cpu + 1) * KERNEL_STACK;

    memcpy(task + 4, &stack, 8);
    task[0x66] = TASK_BITMAP;
    task[TASK_END] = (char)0xff;
    for (unsigned i = 0; i < 32; i++)
        set_gate(idt, i, (uintptr_t)exception_stubs + i * 16);
    for (unsigned i = 0; i < CPU_VECTORS; i++)
        set_gate(idt, CPU_VECTOR(i), (uintptr_t)irq_stubs + (cpu * CPU_VECTORS + i) * 32);
    set_gate(idt, CPU_VECTOR(CPU_DEADLINE), (uintptr_t)(cpu ? deadline_stub_1 : deadline_stub_0));
}

void cpu_init(void)
{
    set_tables(0);
    set_tables(1);
}

void cpu_apic_enable(void)
{
    mmio_write32(APIC + APIC_LINT0, APIC_MASKED);
    mmio_write32(APIC + APIC_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
}

void cpu_started(void)
{
    cpu_apic_enable(); /* before anyone may send it something: a disabled LAPIC drops it */
    second_runs = true;
    second();
    for (;;)
        cpu_relax();
}

bool cpu_start_second(void (*run)(void))
{
    second = run;
    memcpy((void *)(uintptr_t)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    cpu_apic_enable();
    mmio_write32(APIC + APIC_ICR_TO, 1u << 24);
    mmio_write32(APIC + APIC_ICR, ICR_INIT);
    delay_us(10000);
    for (int try = 0; try < 2 && !second_runs; try++) {
        mmio_write32(APIC + APIC_ICR_TO, 1u << 24);
        mmio_write32(APIC + APIC_ICR, ICR_STARTUP | TRAMPOLINE >> 12);
        for (int ms = 0; ms < 500 && !second_runs; ms++)
            delay_us(1000);
    }
    return second_runs;
}

volatile uint64_t *cpu_irq_count(int cpu, unsigned i)
{
    return &irq_counts[cpu * CPU_VECTORS + i];
}

void cpu_halt(volatile uint64_t *counter, uint64_t seen)
{
    __asm__ volatile("hlt" ::"D"(counter), "S"(seen) : "memory"); /* #GP: start.S does it */
}

/* The timer's frequency is what the monitor says it is: measured against the TSC, once. */
void cpu_timer_periodic(unsigned i, unsigned hz)
{
    static volatile uint32_t per_second;

    mmio_write32(APIC + APIC_DIVIDE, 0xb); /* by 1 */
    if (!per_second) {
        mmio_write32(APIC + APIC_TIMER, APIC_MASKED);
        mmio_write32(APIC + APIC_INITIAL, ~0u);
        delay_us(10000);
        per_second = (~0u - mmio_read32(APIC + APIC_CURRENT)) / 10 * 1000;
    }
    mmio_write32(APIC + APIC_TIMER, TIMER_PERIODIC | CPU_VECTOR(i));
    mmio_write32(APIC + APIC_INITIAL, per_second / hz);
}

static void write_msr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32))
                     : "memory"); /* #GP: start.S does it */
}

bool cpu_has_deadline(void)
{
    uint32_t r[4];

    cpuid(1, r);
    return r[2] >> 24 & 1;
}

void cpu_timer_deadline(unsigned hz)
{
    deadline_interval = clock_khz() * 1000 / hz;
    mmio_write32(APIC + APIC_TIMER, TIMER_DEADLINE | CPU_VECTOR(CPU_DEADLINE));
    fence(); /* between the mode and the MSR, as the SDM asks */
    write_msr(0x6e0, rdtsc() + deadline_interval);
}

void cpu_send_ipi(int cpu, unsigned i)
{
    mmio_write32(APIC + APIC_ICR_TO, (uint32_t)cpu << 24);
    mmio_write32(APIC + APIC_ICR, ICR_FIXED | CPU_VECTOR(i));
}

void cpu_triple_fault(void)
{
    memset(idts, 0, 8192);
    __asm__ volatile("ud2");
    __builtin_unreachable();
}

/* Ring 3 again, after an exception that nobody expected. */
void fatal_exception(void)
{
    guest_fail(GUEST_ERROR_EXCEPTION, fatal_frame[2], fatal_frame[0], fatal_frame[1]);
    print("EXCEPTION vector=%u error=%x rip=%x cr2=%x\n", fatal_frame[0], fatal_frame[1], fatal_frame[2],
          fatal_frame[3]);
    for (;;)
        cpu_relax();
}

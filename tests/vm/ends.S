/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest of one processor that ends in the way its command line names, after it wrote 'A' to COM1:
 *
 *   p  power-off            r  reset through 0xcf9     k  reset through the keyboard controller
 *   t  triple fault         b  panic port              h  halts for ever
 *   e  goes on where there is no memory, which KVM cannot follow
 *   l  for ever: counts in the UART's scratch register, and in memory at COUNTER; 'X' to COM1 when what it reads back differs
 */
#define COM1    0x3f8
#define SCRATCH 0x3ff
#define COUNTER 0x300000

    .section .note.Xen, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .text
    .code32
    .globl start
start:
    mov 24(%ebx), %esi /* command line */
    mov $COM1, %edx
    mov $'A', %al
    out %al, %dx
    mov (%esi), %cl
    cmp $'p', %cl
    je power_off
    cmp $'r', %cl
    je reset
    cmp $'k', %cl
    je keyboard
    cmp $'t', %cl
    je triple_fault
    cmp $'b', %cl
    je panic
    cmp $'e', %cl
    je nowhere
    cmp $'l', %cl
    je count
halt:
    hlt
    jmp halt

power_off:
    mov $0x604, %edx
    mov $0x3400, %eax
    out %ax, %dx
    jmp bad

reset:
    mov $0xcf9, %edx
    mov $6, %eax
    out %al, %dx
    jmp bad

keyboard:
    mov $0xfe, %eax
    out %al, $0x64
    jmp bad

panic:
    mov $0x510, %edx
    out %al, %dx
    jmp bad

nowhere:
    mov $0xd0000000, %eax
    jmp *%eax

triple_fault:
    lidt empty
    ud2

/* Nobody may come here: the processor stands still from the request on. */
bad:
    mov $COM1, %edx
    mov $'B', %al
    out %al, %dx
    jmp halt

count:
    xor %eax, %eax
    mov $SCRATCH, %edx
next:
    inc %eax
    mov %al, %ah
    out %al, %dx
    xor %al, %al
    in %dx, %al
    incl COUNTER
    cmp %al, %ah
    je next
    mov $COM1, %edx
    mov $'X', %al
    out %al, %dx
    jmp halt

    .section .rodata
empty:
    .word 0
    .long 0

    .section .note.GNU-stack, "", @progbits

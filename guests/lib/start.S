/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the PVH entry (32-bit protected mode, paging off, ebx = hvm_start_info) to ring 3 in as few instructions as possible: on a
 * software-paged KVM ring 0 is emulated at a million instructions a second, ring 3 is native. Hence: page tables are data of the image,
 * everything that clears or fills memory is done in ring 3 (every page is accessible from there, MMIO too), and ring 0 keeps only
 *
 *   - interrupt handlers: count, EOI, return
 *   - #GP: carries out `hlt` and `wrmsr` for ring 3 (a trap costs less to set up than SYSCALL, which does not work everywhere)
 *   - every other exception: notes what happened and goes on in ring 3 at fatal_exception
 */
    .set CODE32, 0x08
    .set DATA, 0x10
    .set CODE64, 0x18
    .set USER_DATA, 0x23
    .set USER_CODE, 0x2b
    .set TSS0, 0x30
    .set TSS_LIMIT, 0x2068 /* 0x68, then the I/O bitmap for 65536 ports and its end byte */
    .set APIC_EOI, 0xfee000b0
    .set MSR_TSC_DEADLINE, 0x6e0
    .set STACK, 16384
    .set IRQS, 16
    .set TOTAL, 14

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .status, "aw"
    .globl status_block
status_block:
    .skip 4096

/* Identity map of 4 GiB in 2 MiB pages, for ring 3, accessed and dirty already set; the last GiB uncached: MMIO lies there. */
    .section .pages, "aw"
    .balign 4096
pml4:
    .quad pdpt + 0x27
    .skip 4096 - 8
pdpt:
    .quad pd + 0x27, pd + 0x1027, pd + 0x2027, pd + 0x3027
    .skip 4096 - 32
pd:
    .set i, 0
    .rept 2048
    .quad (i << 21) | 0xe7 | ((i >> 9) / 3 * 0x18)
    .set i, i + 1
    .endr

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* 08 code, 32 bits */
    .quad 0x00cf93000000ffff /* 10 data */
    .quad 0x00af9b000000ffff /* 18 code, 64 bits */
    .quad 0x00cff3000000ffff /* 20 data, ring 3 */
    .quad 0x00affb000000ffff /* 28 code, 64 bits, ring 3 */
    .set i, 0
    .rept 2 /* 30, 40: TSS of each processor; the base is filled in at the start */
    .quad 0x0000890000000000 | (TSS_LIMIT & 0xffff)
    .quad 0
    .endr
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .balign 8
idt_pointers:
    .set i, 0
    .rept 2
    .word 0, 0, 0, 4095
    .quad idts + i * 4096
    .set i, i + 1
    .endr
    .globl boot_info
boot_info:
    .long 0

    .text
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    movl %ebx, boot_info
    movb $0xff, %al /* a firmware's timer must not interrupt: its vectors are ours */
    outb %al, $0x21
    outb %al, $0xa1
    movl $tasks, %eax /* below 16 MiB: 24 bits are enough */
    movl %eax, %edx
    movw %ax, gdt + TSS0 + 2
    shrl $16, %eax
    movb %al, gdt + TSS0 + 4
    leal 0x3000(%edx), %eax
    movw %ax, gdt + TSS0 + 16 + 2
    shrl $16, %eax
    movb %al, gdt + TSS0 + 16 + 4
    xorl %ebp, %ebp

/* ebp: which processor */
start32:
    lgdt gdt_pointer
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x20, %eax /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* EFER.LME */
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010033, %eax /* PG WP NE ET MP PE; caches on */
    movl %eax, %cr0
    ljmp $CODE64, $start64

    .code64
start64:
    movl %ebp, %edi
    shll $4, %edi
    lidt idt_pointers + 6(%rdi)
    leal TSS0(%rdi), %eax
    ltr %ax
    movl %ebp, %edi
    leal 1(%rbp), %eax
    imull $STACK, %eax, %eax
    leal user_stacks(%rax), %ecx
    leal kernel_stacks(%rax), %esp
    pushq $USER_DATA
    pushq %rcx
    pushq $0x202
    pushq $USER_CODE
    pushq $start_user
    iretq

/* Ring 3. edi: which processor. */
start_user:
    xorl %ebp, %ebp
    testl %edi, %edi
    jnz 1f
    movl $bss_start, %edi
    movl $bss_end, %ecx
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    call guest_start
    ud2
1:  call cpu_started
    ud2

/* The second processor, copied to 0x8000 and started there in real mode. */
    .section .rodata
    .globl trampoline, trampoline_end
    .code16
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + trampoline_gdt - trampoline
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $CODE32, $start_second
trampoline_gdt:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .text
    .code32
start_second:
    movl $1, %ebp
    movl $DATA, %eax
    movl %eax, %ds
    jmp start32

    .code64
/* One 32-byte stub a vector; IRQS a processor. The counters say what came, and where; counter TOTAL is of all vectors. */
    .balign 32
    .globl irq_stubs
irq_stubs:
    .set i, 0
    .rept IRQS * 2
    .balign 32
    lock incq irq_counts + i * 8
    lock incq irq_counts + (i / IRQS * IRQS + TOTAL) * 8
    jmp irq_end
    .set i, i + 1
    .endr
    .balign 32

irq_end:
    pushq %rax
    movl $APIC_EOI, %eax
    movl $0, (%rax)
    popq %rax
    iretq

/* The last vector of each processor is the LAPIC timer in deadline mode: it arms itself again. */
    .macro deadline_stub cpu
    lock incq irq_counts + (\cpu * IRQS + IRQS - 1) * 8
    lock incq irq_counts + (\cpu * IRQS + TOTAL) * 8
    pushq %rax
    pushq %rcx
    pushq %rdx
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    addq deadline_interval, %rax
    movq %rax, %rdx
    shrq $32, %rdx
    movl $MSR_TSC_DEADLINE, %ecx
    wrmsr
    popq %rdx
    popq %rcx
    popq %rax
    jmp irq_end
    .endm
    .globl deadline_stub_0, deadline_stub_1
deadline_stub_0:
    deadline_stub 0
deadline_stub_1:
    deadline_stub 1

/* Exceptions: 16 bytes a stub. Afterwards the stack is: vector, error code, rip, cs, rflags, rsp, ss. */
    .balign 16
    .globl exception_stubs
exception_stubs:
    .set i, 0
    .rept 32
    .balign 16
    .if !(i == 8 || (i >= 10 && i <= 14) || i == 17 || i == 21 || i == 29 || i == 30)
    pushq $0
    .endif
    pushq $i
    jmp exception
    .set i, i + 1
    .endr
    .balign 16

exception:
    cmpl $13, (%rsp)
    jne fatal
    pushq %rax
    movq 24(%rsp), %rax
    cmpb $0xf4, (%rax)
    je halt
    cmpw $0x300f, (%rax)
    jne 1f
    addq $2, 24(%rsp)
    popq %rax
    addq $16, %rsp
    wrmsr
    iretq
1:  popq %rax
fatal:
    popq fatal_frame
    popq fatal_frame + 8
    pushq %rax
    movq 8(%rsp), %rax
    movq %rax, fatal_frame + 16
    movq %cr2, %rax
    movq %rax, fatal_frame + 24
    popq %rax
    movq $fatal_exception, (%rsp)
    andq $-16, 24(%rsp)
    subq $8, 24(%rsp) /* as after a call */
    iretq

/* hlt in ring 3: sleep until an interrupt, unless *rdi no longer is rsi. Looked at with interrupts off: no wake-up is lost. */
halt:
    incq 24(%rsp)
    movq (%rdi), %rax
    cmpq %rsi, %rax
    jne 1f
    sti
    hlt
    cli
1:  popq %rax
    addq $16, %rsp
    iretq

    .bss
    .balign 4096
    .globl tasks, idts, irq_counts, deadline_interval, fatal_frame
tasks: /* one TSS in every 0x3000 bytes */
    .skip 0x6000
idts:
    .skip 0x2000
irq_counts:
    .skip IRQS * 2 * 8
deadline_interval:
    .skip 8
fatal_frame:
    .skip 32

    .section .stacks, "aw", @nobits
    .balign 16
    .globl kernel_stacks
kernel_stacks:
    .skip STACK * 2
user_stacks:
    .skip STACK * 2

    .section .note.GNU-stack, "", @progbits

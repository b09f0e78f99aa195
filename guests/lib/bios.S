/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A 64 KiB firmware image that holds a guest: from the reset vector to 32-bit mode, copies the guest to 2 MiB and enters it with no
 * hvm_start_info (ebx = 0: its command line then comes from fw_cfg, opt/perdure.cmdline). ENTRY and PAYLOAD come from the build.
 */
    .text
    .code16
    .org 0
payload:
    .incbin PAYLOAD
payload_end:
    .org 0xff00
start16:
    cli
    lgdtl %cs:gdt_pointer
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $0x08, $0xf0000 + start32

    .code32
start32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    cld
    movl $0xf0000 + payload, %esi
    movl $0x200000, %edi
    movl $(payload_end - payload + 3) / 4, %ecx
    rep movsl
    xorl %ebx, %ebx
    movl $ENTRY, %eax
    jmp *%eax

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long 0xf0000 + gdt

    .code16
    .org 0xfff0
    jmp start16
    .org 0x10000

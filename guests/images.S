/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guests as data of the program: guest_image_NAME_start, guest_image_NAME_end. */
    .macro image name
    .globl guest_image_\name\()_start, guest_image_\name\()_end
    .balign 16
guest_image_\name\()_start:
    .incbin "\name\().elf"
guest_image_\name\()_end:
    .endm

    .section .rodata
    image count
    image dirty
    image irq
    image walk

    .section .note.GNU-stack, "", @progbits

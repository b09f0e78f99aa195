/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guests as data of the program: guest_image_NAME_start and _end, and the table of machine/guest_images.h. */
    .macro image name
    .section .rodata
    .globl guest_image_\name\()_start, guest_image_\name\()_end
    .balign 16
guest_image_\name\()_start:
    .incbin "\name\().elf"
guest_image_\name\()_end:
name_\name:
    .asciz "\name"
    .section .data.rel.ro, "aw"
    .quad name_\name, guest_image_\name\()_start, guest_image_\name\()_end
    .endm

    .section .data.rel.ro, "aw"
    .balign 8
    .globl guest_images
guest_images:
    image count
    image dirty
    image disk
    image irq
    image log
    image walk
    .quad 0, 0, 0

    .section .note.GNU-stack, "", @progbits

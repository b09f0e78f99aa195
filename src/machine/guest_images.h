/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The small guests of guests/ that the program carries as data: ELF files with a PVH entry, to be booted like
 * any kernel. Their options and their protocol are in guests/guest_abi.h. `perdure run --guest count` and the
 * tests ask for them by name.
 */
#ifndef MACHINE_GUEST_IMAGES_H
#define MACHINE_GUEST_IMAGES_H

#include <stddef.h>

struct guest_image {
    const char *name; /* NULL ends the table */
    const unsigned char *start, *end;
};

/* guests/images.S */
extern const struct guest_image guest_images[];

/* NULL: there is none of that name. */
const struct guest_image *guest_image_find(const char *name);
static inline size_t guest_image_size(const struct guest_image *g)
{
    return (size_t)(g->end - g->start);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/guest_images.h"

#include <string.h>

const struct guest_image *guest_image_find(const char *name)
{
    for (const struct guest_image *g = guest_images; g->name; g++)
        if (!strcmp(g->name, name))
            return g;
    return NULL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/epoch_writes.h"

#include <stdlib.h>

struct epoch_writes *epoch_writes_new(void)
{
    struct epoch_writes *w = calloc(1, sizeof(*w));

    if (w) {
        w->end = &w->first;
        w->bytes = sizeof(*w);
    }
    return w;
}

void epoch_writes_free(struct epoch_writes *w)
{
    if (!w)
        return;
    while (w->first) {
        struct disk_write *d = w->first;

        w->first = d->next;
        free(d);
    }
    free(w);
}

struct disk_write *disk_write_new(enum disk_write_kind kind, uint32_t disk, uint64_t offset, uint64_t size,
                                  uint32_t data_size)
{
    struct disk_write *d = malloc(sizeof(*d) + data_size);

    if (d)
        *d = (struct disk_write){
            .kind = kind, .disk = disk, .offset = offset, .size = size, .data_size = data_size};
    return d;
}

void epoch_writes_add(struct epoch_writes *w, struct disk_write *d)
{
    d->next = NULL;
    *w->end = d;
    w->end = &d->next;
    w->count++;
    w->bytes += sizeof(*d) + d->data_size;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream_records.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *copy(const void *data, size_t size)
{
    uint8_t *p = malloc(size + 1);

    if (!p)
        abort();
    if (size)
        memcpy(p, data, size);
    return p;
}

/* How much can be got at once: of a record that goes on in another frame nobody knows how much is left. */
static size_t next_piece(VMStream *f, size_t most)
{
    size_t left = perdure_stream_left(f);

    return left == SIZE_MAX ? 1 : left < most ? left : most;
}

/* The body of the record that is open; false: it is damaged. */
static bool read_body(VMStream *f, struct record *r)
{
    struct rig_bytes all = {copy(NULL, 0), 0};
    uint8_t piece[4096];
    size_t n;

    while ((n = next_piece(f, sizeof(piece))) && perdure_stream_get_buffer(f, piece, n))
        rig_bytes_add(&all, piece, n);
    perdure_stream_done(f);
    r->body = all.data;
    r->size = all.size;
    return !perdure_stream_error(f, NULL);
}

void records_split(struct records *ret, const void *data, size_t size)
{
    VMStream *f = perdure_stream_open_buffer(data, size);
    struct record r = {0};

    ret->count = 0;
    while (ret->count < RECORDS_MAX && perdure_stream_next(f, &r.type, &r.id)) {
        if (!read_body(f, &r)) {
            free(r.body);
            break;
        }
        ret->r[ret->count++] = r;
        r = (struct record){.at = (size_t)perdure_stream_bytes(f)};
    }
    perdure_stream_close(f);
}

struct rig_bytes records_join(const struct records *rs)
{
    VMStream *f = perdure_stream_open_memory(0);
    struct rig_bytes ret = {0};
    const void *data;
    size_t size;

    for (unsigned i = 0; i < rs->count; i++) {
        perdure_stream_begin(f, rs->r[i].type, rs->r[i].id);
        perdure_stream_put_buffer(f, rs->r[i].body, rs->r[i].size);
        perdure_stream_end(f);
    }
    data = perdure_stream_memory(f, &size);
    rig_bytes_add(&ret, data, size);
    perdure_stream_close(f);
    return ret;
}

void records_free(struct records *rs)
{
    for (unsigned i = 0; i < rs->count; i++)
        free(rs->r[i].body);
    rs->count = 0;
}

void records_copy(struct records *ret, const struct records *from)
{
    *ret = *from;
    for (unsigned i = 0; i < ret->count; i++)
        ret->r[i].body = copy(from->r[i].body, from->r[i].size);
}

void records_insert(struct records *rs, unsigned at, uint16_t type, uint64_t id, const void *body,
                    size_t size)
{
    struct record r = {.type = type, .id = id, .size = size};

    if (rs->count == RECORDS_MAX || at > rs->count)
        return;
    r.body = copy(body, size);
    memmove(&rs->r[at + 1], &rs->r[at], (rs->count - at) * sizeof(r));
    rs->r[at] = r;
    rs->count++;
}

void records_remove(struct records *rs, unsigned at)
{
    free(rs->r[at].body);
    rs->count--;
    memmove(&rs->r[at], &rs->r[at + 1], (rs->count - at) * sizeof(rs->r[0]));
}

void records_swap(struct records *rs, unsigned a, unsigned b)
{
    struct record r = rs->r[a];

    rs->r[a] = rs->r[b];
    rs->r[b] = r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "record_mutator.h"

#include "base/crc32c.h"
#include "base/endian.h"
#include "stream/frame.h"
#include <perdure/savevm.h>

#include <stdlib.h>
#include <string.h>

#define GROWTH      64 /* octets a change may add to a body */
#define CHANGES_MAX 4
#define RAW_ONE_IN  16 /* changes octets, checksums and all */
#define HEAD_ONE_IN 8  /* changes a frame's head as well */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static struct record *any(struct records *rs, struct sim_rng *rng)
{
    return &rs->r[sim_rng_below(rng, rs->count)];
}

/* --- what may happen to one record --- */

/* libFuzzer's own ways: they know what the code compares with. */
static void change_body(struct record *r, struct sim_rng *rng)
{
    uint8_t *body = realloc(r->body, r->size + GROWTH);

    (void)rng;
    if (!body)
        abort();
    r->body = body;
    r->size = LLVMFuzzerMutate(body, r->size, r->size + GROWTH);
}

/* A number at one of its limits. */
static void put_limit(struct record *r, struct sim_rng *rng)
{
    static const uint64_t limits[] = {0,
                                      1,
                                      2,
                                      3,
                                      4,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x100,
                                      0xfff,
                                      0x1000,
                                      0x7fff,
                                      0xffff,
                                      0x10000,
                                      0xfffff,
                                      0x100000,
                                      0x7fffffff,
                                      0x80000000,
                                      0xfffff000,
                                      0xffffffff,
                                      INT64_MAX,
                                      UINT64_MAX,
                                      UINT64_MAX - 4095};
    size_t n = (size_t)1 << sim_rng_below(rng, 4);
    uint8_t bytes[8];

    if (r->size < n)
        return;
    le64_put(bytes, limits[sim_rng_below(rng, sizeof(limits) / sizeof(limits[0]))]);
    memcpy(r->body + sim_rng_below(rng, r->size - n + 1), bytes, n);
}

static void change_octet(struct record *r, struct sim_rng *rng)
{
    if (r->size)
        r->body[sim_rng_below(rng, r->size)] ^= (uint8_t)(1u << sim_rng_below(rng, 8));
}

static void cut_body(struct record *r, struct sim_rng *rng)
{
    if (r->size)
        r->size -= 1 + sim_rng_below(rng, sim_rng_one_in(rng, 2) ? r->size : 1);
}

static void change_type(struct record *r, struct sim_rng *rng)
{
    r->type = (uint16_t)(sim_rng_one_in(rng, 8) ? sim_rng_next(rng) : sim_rng_below(rng, 0x50));
}

static void change_id(struct records *rs, struct sim_rng *rng)
{
    struct record *r = any(rs, rng);

    r->id = sim_rng_one_in(rng, 2) ? any(rs, rng)->id : r->id + sim_rng_below(rng, 5) - 2;
}

/* --- and to several --- */

static void leave_out(struct records *rs, struct sim_rng *rng)
{
    if (rs->count > 1)
        records_remove(rs, (unsigned)sim_rng_below(rng, rs->count));
}

static void repeat(struct records *rs, struct sim_rng *rng)
{
    struct record r = *any(rs, rng);

    records_insert(rs, (unsigned)sim_rng_below(rng, rs->count + 1), r.type, r.id, r.body, r.size);
}

static void exchange(struct records *rs, struct sim_rng *rng)
{
    records_swap(rs, (unsigned)sim_rng_below(rng, rs->count), (unsigned)sim_rng_below(rng, rs->count));
}

static void put_in(struct records *rs, const struct records *from, struct sim_rng *rng)
{
    const struct record *r = &from->r[sim_rng_below(rng, from->count)];

    records_insert(rs, (unsigned)sim_rng_below(rng, rs->count + 1), r->type, r->id, r->body, r->size);
}

/* START and FULL begin with a name. */
static bool are_alike(const struct record *a, const struct record *b)
{
    size_t name;

    if (a->type != b->type ||
        (a->type != PERDURE_RECORD_SECTION_START && a->type != PERDURE_RECORD_SECTION_FULL))
        return a->type == b->type;
    name = b->size >= 2 ? 2u + le16_get(b->body) : 0;
    return a->size >= name && b->size >= name && !memcmp(a->body, b->body, name);
}

static void take_body(struct record *to, struct record *from)
{
    uint8_t *body = to->body;
    size_t size = to->size;

    to->body = from->body;
    to->size = from->size;
    from->body = body;
    from->size = size;
}

/* The known stream, with the bodies that rs has for its records. What was left out or out of place would keep all of
 * them from being looked at together: most of what is worth finding begins when the guest runs. */
static void make_whole(struct records *rs, const struct records *known)
{
    static struct records whole;
    bool taken[RECORDS_MAX] = {false};

    records_copy(&whole, known);
    for (unsigned i = 0; i < rs->count; i++) {
        unsigned k = 0;

        while (k < whole.count && (taken[k] || !are_alike(&rs->r[i], &whole.r[k])))
            k++;
        if (k == whole.count)
            continue;
        taken[k] = true;
        take_body(&whole.r[k], &rs->r[i]);
    }
    records_free(rs);
    *rs = whole;
}

/* One device's state, and nothing else: any other change may be what it is refused for. */
static void change_device(struct records *rs, struct sim_rng *rng)
{
    static void (*const ways[])(struct record *, struct sim_rng *) = {change_body, put_limit, change_octet};
    struct record *r = any(rs, rng);

    if (r->type == PERDURE_RECORD_SECTION_FULL)
        ways[sim_rng_below(rng, 3)](r, rng);
}

static void change(struct records *rs, const struct records *known, struct sim_rng *rng)
{
    static void (*const of_one[])(struct record *, struct sim_rng *) = {change_body, put_limit, change_octet,
                                                                        cut_body, change_type};
    static void (*const of_all[])(struct records *, struct sim_rng *) = {change_id, leave_out, repeat,
                                                                         exchange};

    if (sim_rng_one_in(rng, 10))
        put_in(rs, known, rng);
    else if (sim_rng_one_in(rng, 3))
        of_all[sim_rng_below(rng, 4)](rs, rng);
    else
        of_one[sim_rng_below(rng, 5)](any(rs, rng), rng);
}

static void change_all(struct records *rs, const struct records *known, struct sim_rng *rng)
{
    bool whole = sim_rng_one_in(rng, 2);

    if (whole)
        make_whole(rs, known);
    for (uint64_t n = 1 + sim_rng_below(rng, CHANGES_MAX); n--;) {
        if (whole)
            change_device(rs, rng);
        else
            change(rs, known, rng);
    }
}

/* --- frames --- */

/* The head that begins there, any of its fields but the checksums. */
static void change_head(struct rig_bytes *b, const struct records *rs, struct sim_rng *rng)
{
    size_t at = 0;

    for (uint64_t i = sim_rng_below(rng, rs->count); i--;)
        at += FRAME_HEADER_SIZE + rs->r[i].size;
    if (at + FRAME_HEADER_SIZE > b->size)
        return;
    b->data[at + sim_rng_below(rng, 16)] ^= (uint8_t)(1u << sim_rng_below(rng, 8));
    le32_put(b->data + at + 20, crc32c(0, b->data + at, 20));
}

/* What is too large for out is no new input. */
static size_t give(struct rig_bytes *b, uint8_t *out, size_t max_size, size_t otherwise)
{
    size_t size = b->size <= max_size ? b->size : otherwise;

    if (b->size <= max_size)
        memcpy(out, b->data, b->size);
    free(b->data);
    return size;
}

size_t record_mutate(uint8_t *data, size_t size, size_t max_size, unsigned seed, const struct records *known)
{
    struct sim_rng rng = sim_rng_make(seed, 0);
    static struct records rs;
    struct rig_bytes b;

    if (sim_rng_one_in(&rng, RAW_ONE_IN))
        return LLVMFuzzerMutate(data, size, max_size);
    records_split(&rs, data, size);
    if (!rs.count)
        records_copy(&rs, known);
    change_all(&rs, known, &rng);
    b = records_join(&rs);
    if (sim_rng_one_in(&rng, HEAD_ONE_IN))
        change_head(&b, &rs, &rng);
    records_free(&rs);
    return give(&b, data, max_size, size);
}

/* The first ones of a, the last ones of b. */
size_t record_cross(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                    size_t max_size, unsigned seed)
{
    struct sim_rng rng = sim_rng_make(seed, 1);
    static struct records first, last;
    struct rig_bytes joined;

    records_split(&first, a, a_size);
    records_split(&last, b, b_size);
    for (uint64_t n = sim_rng_below(&rng, first.count + 1); n--;)
        records_remove(&first, first.count - 1);
    for (unsigned i = (unsigned)sim_rng_below(&rng, last.count + 1); i < last.count; i++)
        records_insert(&first, first.count, last.r[i].type, last.r[i].id, last.r[i].body, last.r[i].size);
    joined = records_join(&first);
    records_free(&first);
    records_free(&last);
    return give(&joined, out, max_size, 0);
}

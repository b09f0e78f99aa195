/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/journal_format.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/random.h"

#include <string.h>

#define VERSION     1
#define HEADER_CRC  (JOURNAL_BLOCK - 4)
#define HEADER_DISK 80 /* the first one */
#define DISK_SIZE   40

static const char header_magic[8] = "perdjrnl", mark_magic[8] = "perdmark", head_magic[8] = "perdepch";

/* --- header --- */

static bool is_text(const char *s, size_t size)
{
    return s[0] && memchr(s, 0, size);
}

static bool check_identity(const struct journal_identity *identity, const char *name, Error **errp)
{
    if (!is_text(identity->pair, sizeof(identity->pair))) {
        error_setg(errp, "%s: the journal names no pair", name);
        return false;
    }
    if (!identity->disk_count || identity->disk_count > JOURNAL_DISKS_MAX) {
        error_setg(errp, "%s: a journal of %u disks; 1 to %d is possible", name, identity->disk_count,
                   JOURNAL_DISKS_MAX);
        return false;
    }
    for (uint32_t i = 0; i < identity->disk_count; i++)
        if (!is_text(identity->disks[i].id, sizeof(identity->disks[i].id)) ||
            identity->disks[i].size > INT64_MAX) {
            error_setg(errp, "%s: disk number %u of the journal has no name or an impossible size", name, i);
            return false;
        }
    return true;
}

static uint64_t segment_size(uint64_t journal_size)
{
    return (journal_size - 3 * JOURNAL_BLOCK) / 2 / JOURNAL_BLOCK * JOURNAL_BLOCK;
}

bool journal_header_init(struct journal_header *ret, const struct journal_identity *identity, uint64_t size,
                         const char *name, Error **errp)
{
    if (!check_identity(identity, name, errp))
        return false;
    if (size < JOURNAL_SIZE_MIN || size > INT64_MAX) {
        error_setg(errp, "%s: a journal of %llu bytes; at least %u are needed", name,
                   (unsigned long long)size, JOURNAL_SIZE_MIN);
        return false;
    }
    *ret = (struct journal_header){.identity = *identity, .segment_size = segment_size(size)};
    random_bytes(&ret->id, sizeof(ret->id));
    return true;
}

/* out is zero already, so a NUL follows. */
static void text_put(uint8_t *out, const char *s, size_t size)
{
    memcpy(out, s, strnlen(s, size - 1));
}

void journal_header_encode(const struct journal_header *h, uint8_t out[JOURNAL_BLOCK])
{
    memset(out, 0, JOURNAL_BLOCK);
    memcpy(out, header_magic, 8);
    le32_put(out + 8, VERSION);
    le32_put(out + 12, h->identity.disk_count);
    le64_put(out + 16, h->id);
    le64_put(out + 24, h->segment_size);
    le64_put(out + 32, h->identity.generation);
    text_put(out + 40, h->identity.pair, sizeof(h->identity.pair));
    for (uint32_t i = 0; i < h->identity.disk_count; i++) {
        uint8_t *disk = out + HEADER_DISK + i * DISK_SIZE;

        text_put(disk, h->identity.disks[i].id, sizeof(h->identity.disks[i].id));
        le64_put(disk + 32, h->identity.disks[i].size);
    }
    le32_put(out + HEADER_CRC, crc32c(0, out, HEADER_CRC));
}

static void read_identity(const uint8_t *in, struct journal_identity *ret)
{
    *ret = (struct journal_identity){.disk_count = le32_get(in + 12), .generation = le64_get(in + 32)};
    memcpy(ret->pair, in + 40, sizeof(ret->pair));
    for (uint32_t i = 0; i < ret->disk_count && i < JOURNAL_DISKS_MAX; i++) {
        const uint8_t *disk = in + HEADER_DISK + i * DISK_SIZE;

        memcpy(ret->disks[i].id, disk, sizeof(ret->disks[i].id));
        ret->disks[i].size = le64_get(disk + 32);
    }
}

bool journal_header_decode(const uint8_t in[JOURNAL_BLOCK], uint64_t size, const char *name,
                           struct journal_header *ret, Error **errp)
{
    struct journal_header h = {.id = le64_get(in + 16), .segment_size = le64_get(in + 24)};

    if (memcmp(in, header_magic, 8)) {
        error_setg(errp, "%s: this is no journal", name);
        return false;
    }
    if (le32_get(in + 8) != VERSION) {
        error_setg(errp, "%s: the journal has format %u, this build knows %u", name, le32_get(in + 8),
                   VERSION);
        return false;
    }
    if (le32_get(in + HEADER_CRC) != crc32c(0, in, HEADER_CRC)) {
        error_setg(errp, "%s: the journal's header is damaged", name);
        return false;
    }
    read_identity(in, &h.identity);
    if (!check_identity(&h.identity, name, errp))
        return false;
    if (size < JOURNAL_SIZE_MIN || !h.segment_size || h.segment_size % JOURNAL_BLOCK ||
        h.segment_size > segment_size(size)) {
        error_setg(errp, "%s: the journal is cut off: %llu bytes, of two segments of %llu", name,
                   (unsigned long long)size, (unsigned long long)h.segment_size);
        return false;
    }
    *ret = h;
    return true;
}

/* --- marks and heads: magic, id, ..., CRC of all before it --- */

static void seal(uint8_t *out, size_t size, const char magic[8], uint64_t id)
{
    memcpy(out, magic, 8);
    le64_put(out + 8, id);
    le32_put(out + size - 4, crc32c(0, out, size - 4));
}

static bool is_sealed(const uint8_t *in, size_t size, const char magic[8], uint64_t id)
{
    return !memcmp(in, magic, 8) && le64_get(in + 8) == id &&
           le32_get(in + size - 4) == crc32c(0, in, size - 4);
}

void journal_mark_encode(const struct journal_mark *m, uint64_t id, uint8_t out[JOURNAL_MARK_SIZE])
{
    le64_put(out + 16, m->turn);
    le64_put(out + 24, m->number);
    le64_put(out + 32, m->epoch);
    seal(out, JOURNAL_MARK_SIZE, mark_magic, id);
}

bool journal_mark_decode(const uint8_t in[JOURNAL_MARK_SIZE], uint64_t id, struct journal_mark *ret)
{
    *ret = (struct journal_mark){
        .turn = le64_get(in + 16), .number = le64_get(in + 24), .epoch = le64_get(in + 32)};
    return is_sealed(in, JOURNAL_MARK_SIZE, mark_magic, id);
}

void journal_head_encode(const struct journal_head *h, uint64_t id, uint8_t out[JOURNAL_HEAD_SIZE])
{
    le64_put(out + 16, h->number);
    le64_put(out + 24, h->epoch);
    le64_put(out + 32, h->durable);
    le64_put(out + 40, h->body_size);
    le64_put(out + 48, h->count);
    le32_put(out + 56, h->body_crc);
    seal(out, JOURNAL_HEAD_SIZE, head_magic, id);
}

bool journal_head_decode(const uint8_t in[JOURNAL_HEAD_SIZE], uint64_t id, struct journal_head *ret)
{
    *ret = (struct journal_head){
        .number = le64_get(in + 16),
        .epoch = le64_get(in + 24),
        .durable = le64_get(in + 32),
        .body_size = le64_get(in + 40),
        .count = le64_get(in + 48),
        .body_crc = le32_get(in + 56),
    };
    return is_sealed(in, JOURNAL_HEAD_SIZE, head_magic, id);
}

uint64_t journal_epoch_size(uint64_t body_size)
{
    const uint64_t more = JOURNAL_HEAD_SIZE + JOURNAL_BLOCK - 1;

    return body_size > UINT64_MAX - more ? UINT64_MAX : (body_size + more) / JOURNAL_BLOCK * JOURNAL_BLOCK;
}

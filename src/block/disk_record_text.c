/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of a disk record. The reader takes what it understands and then writes the record again: a text
 * that differs by a single octet is no record.
 */
#include "base/crc32c.h"
#include "block/disk_record.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LINE "perdure-disk-record"
#define VERSION    "1"
#define CRC_LINE   16 /* "crc32c 01234567\n" */

static const char *const role_names[] = {
    [DISK_NO_RECORD] = "none",          [DISK_CLEAN] = "clean",
    [DISK_PRIMARY] = "primary",         [DISK_STANDBY] = "standby",
    [DISK_SYNC_TARGET] = "sync-target", [DISK_SUPERSEDED] = "superseded",
};

const char *disk_role_name(enum disk_role r)
{
    return role_names[r];
}

/* In this order. */
static const struct field {
    const char *name;
    size_t offset;
    size_t size; /* of a string; 0: a number */
} fields[] = {
#define STRING(name)                                                                                         \
    {                                                                                                        \
#name, offsetof(struct disk_record, name), sizeof(((struct disk_record *)0)->name)                   \
    }
#define NUMBER(name)                                                                                         \
    {                                                                                                        \
#name, offsetof(struct disk_record, name), 0                                                         \
    }
    STRING(vm),    STRING(disk),    STRING(pair), NUMBER(generation),
    NUMBER(epoch), STRING(arbiter), STRING(peer), STRING(journal),
#undef STRING
#undef NUMBER
};

#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static void *member(const struct disk_record *r, const struct field *f)
{
    return (char *)r + f->offset;
}

/* --- writing --- */

struct text {
    char *buf;
    size_t n;
};

static void put(struct text *t, const char *fmt, ...) PERDURE_PRINTF(2, 3);
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->buf + t->n, DISK_RECORD_TEXT_SIZE - t->n, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < DISK_RECORD_TEXT_SIZE - t->n);
    t->n += n;
}

/* A line is a line, whatever a file may be called. */
static void put_escaped(struct text *t, const char *s, size_t size)
{
    for (size_t i = 0; i + 1 < size && s[i]; i++) {
        unsigned char c = s[i];

        put(t, c < 0x20 || c == 0x7f || c == '\\' ? "\\x%02x" : "%c", c);
    }
}

static void put_field(struct text *t, const struct disk_record *r, const struct field *f)
{
    const char *value = member(r, f);

    if (f->size && !value[0])
        return;
    put(t, "%s ", f->name);
    if (f->size)
        put_escaped(t, value, f->size);
    else
        put(t, "%llu", (unsigned long long)*(const uint64_t *)member(r, f));
    put(t, "\n");
}

size_t disk_record_format(const struct disk_record *r, char buf[DISK_RECORD_TEXT_SIZE])
{
    struct text t = {buf, 0};

    assert(r->role > DISK_NO_RECORD && r->role <= DISK_SUPERSEDED);
    put(&t, "%s %s\nrole %s\n", FIRST_LINE, VERSION, disk_role_name(r->role));
    for (size_t i = 0; i < FIELDS; i++)
        put_field(&t, r, &fields[i]);
    put(&t, "crc32c %08x\n", crc32c(0, t.buf, t.n));
    return t.n;
}

/* --- reading --- */

/* false: something else, or too long. */
static bool get_escaped(const char *value, size_t n, char *out, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        char hex[3] = "", *end = hex;

        if (used + 1 >= size)
            return false;
        if (value[i] != '\\') {
            out[used++] = value[i];
            continue;
        }
        if (n - i < 4 || value[i + 1] != 'x')
            return false;
        memcpy(hex, value + i + 2, 2);
        out[used++] = (char)strtoul(hex, &end, 16);
        if (end != hex + 2)
            return false;
        i += 3;
    }
    return true; /* the rest of out is zero */
}

static bool get_number(const char *value, size_t n, uint64_t *ret)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        if (value[i] < '0' || value[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(value[i] - '0'), &v))
            return false;
    *ret = v;
    return n > 0;
}

static bool get_role(const char *value, size_t n, enum disk_role *ret)
{
    for (int i = DISK_CLEAN; i <= DISK_SUPERSEDED; i++)
        if (strlen(role_names[i]) == n && !memcmp(role_names[i], value, n)) {
            *ret = i;
            return true;
        }
    return false;
}

/* A line without its end: "name value". */
static bool get_line(const char *line, size_t n, struct disk_record *r)
{
    const char *space = memchr(line, ' ', n), *value = space + 1;
    size_t name_size = space ? space - line : 0, value_size;

    if (!space)
        return false;
    value_size = n - name_size - 1;
    if (name_size == 4 && !memcmp(line, "role", 4))
        return get_role(value, value_size, &r->role);
    for (size_t i = 0; i < FIELDS; i++) {
        const struct field *f = &fields[i];

        if (strlen(f->name) != name_size || memcmp(f->name, line, name_size))
            continue;
        if (!f->size)
            return get_number(value, value_size, member(r, f));
        memset(member(r, f), 0, f->size);
        return get_escaped(value, value_size, member(r, f), f->size);
    }
    return false;
}

static bool get_lines(const char *text, size_t n, struct disk_record *r)
{
    while (n) {
        const char *end = memchr(text, '\n', n);

        if (!end || !get_line(text, end - text, r))
            return false;
        n -= end + 1 - text;
        text = end + 1;
    }
    return true;
}

static bool crc_is_right(const char *text, size_t n)
{
    char expected[CRC_LINE + 1];

    if (n < CRC_LINE)
        return false;
    snprintf(expected, sizeof(expected), "crc32c %08x\n", crc32c(0, text, n - CRC_LINE));
    return !memcmp(text + n - CRC_LINE, expected, CRC_LINE);
}

/* Of another version, by its first line? */
static bool check_version(const char *text, size_t n, const char *where, Error **errp)
{
    const size_t prefix = sizeof(FIRST_LINE) - 1;
    const char *end = memchr(text, '\n', n);
    uint64_t version;

    if (!end || (size_t)(end - text) <= prefix || memcmp(text, FIRST_LINE " ", prefix + 1) ||
        !get_number(text + prefix + 1, end - text - prefix - 1, &version) || version == 1)
        return true; /* as far as this goes */
    error_setg(errp, "disk record %s: it has version %llu, this build knows %s", where,
               (unsigned long long)version, VERSION);
    return false;
}

bool disk_record_parse(const char *text, size_t n, const char *where, struct disk_record *ret_record,
                       Error **errp)
{
    const size_t first = sizeof(FIRST_LINE " " VERSION "\n") - 1;
    struct disk_record r = {.role = DISK_NO_RECORD};
    char again[DISK_RECORD_TEXT_SIZE];

    if (!check_version(text, n, where, errp))
        return false;
    if (n < first + CRC_LINE || !crc_is_right(text, n) ||
        !get_lines(text + first, n - first - CRC_LINE, &r) || r.role == DISK_NO_RECORD ||
        disk_record_format(&r, again) != n || memcmp(again, text, n)) {
        error_setg(errp,
                   "disk record %s: it is damaged, so nobody knows what the disk is; if you are sure that "
                   "it is the newest copy, remove the record",
                   where);
        return false;
    }
    *ret_record = r;
    return true;
}

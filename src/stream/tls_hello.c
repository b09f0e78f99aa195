/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/tls_hello.h"

#include <stdbool.h>
#include <string.h>

#define RECORD_HANDSHAKE   22
#define RECORD_HEADER      5
#define RECORD_MAX         16384
#define CLIENT_HELLO       1
#define VERSION_AND_RANDOM 34
#define EXTENSION_PSK      41

/* What is left of something whose length is known. failed: somebody wanted more than there is. */
struct bytes {
    const uint8_t *p;
    size_t n;
    bool failed;
};

static const uint8_t *take(struct bytes *b, size_t n)
{
    const uint8_t *p = b->p;

    if (b->failed || n > b->n) {
        b->failed = true;
        return NULL;
    }
    b->p += n;
    b->n -= n;
    return p;
}

static size_t take_number(struct bytes *b, int octets)
{
    const uint8_t *p = take(b, (size_t)octets);
    size_t v = 0;

    for (int i = 0; p && i < octets; i++)
        v = v << 8 | p[i];
    return v;
}

/* A vector: its length in that many octets, then its contents. */
static struct bytes take_vector(struct bytes *b, int octets)
{
    size_t n = take_number(b, octets);
    const uint8_t *p = take(b, n);

    return (struct bytes){.p = p, .n = p ? n : 0, .failed = b->failed};
}

static struct bytes find_extension(struct bytes all, size_t wanted)
{
    while (all.n && !all.failed) {
        size_t type = take_number(&all, 2);
        struct bytes body = take_vector(&all, 2);

        if (type == wanted)
            return body;
    }
    return (struct bytes){.failed = true};
}

static bool copy_text(struct bytes from, char *buf, size_t size)
{
    if (from.failed || !from.n || from.n >= size)
        return false;
    for (size_t i = 0; i < from.n; i++)
        if (from.p[i] <= ' ' || from.p[i] > '~')
            return false;
    memcpy(buf, from.p, from.n);
    buf[from.n] = 0;
    return true;
}

/* record: what is in it, whole. */
static bool find_identity(struct bytes record, char *buf, size_t size)
{
    struct bytes hello, extensions, psk, identities;

    if (take_number(&record, 1) != CLIENT_HELLO)
        return false;
    hello = take_vector(&record, 3);
    take(&hello, VERSION_AND_RANDOM);
    take_vector(&hello, 1); /* session */
    take_vector(&hello, 2); /* cipher suites */
    take_vector(&hello, 1); /* compression */
    extensions = take_vector(&hello, 2);
    psk = find_extension(extensions, EXTENSION_PSK);
    identities = take_vector(&psk, 2);
    return copy_text(take_vector(&identities, 2), buf, size);
}

enum tls_hello tls_hello_identity(const uint8_t *p, size_t n, char *buf, size_t size)
{
    struct bytes all = {.p = p, .n = n};
    size_t length;

    if (n && p[0] != RECORD_HANDSHAKE)
        return TLS_HELLO_NONE;
    if (n < RECORD_HEADER)
        return TLS_HELLO_MORE;
    take(&all, 3);
    length = take_number(&all, 2);
    if (length > RECORD_MAX)
        return TLS_HELLO_NONE;
    if (all.n < length)
        return TLS_HELLO_MORE;
    all.n = length;
    return find_identity(all, buf, size) ? TLS_HELLO_FOUND : TLS_HELLO_NONE;
}

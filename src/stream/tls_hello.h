/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The identity in a TLS 1.3 ClientHello (RFC 8446, 4.1.2 and 4.2.11): which pre-shared key the client means.
 * It is sent in clear, before anything is proved: good for choosing whom a connection is for, for nothing
 * else.
 */
#ifndef STREAM_TLS_HELLO_H
#define STREAM_TLS_HELLO_H

#include <stddef.h>
#include <stdint.h>

/* The largest that is looked at: one record. */
#define TLS_HELLO_MAX (5 + 16384)

enum tls_hello { TLS_HELLO_FOUND, TLS_HELLO_MORE, TLS_HELLO_NONE };

/* p: the first n bytes of the connection, hostile. FOUND: the first identity, with its end, is in buf. MORE:
 * these bytes are right as far as they go. NONE: it is no ClientHello, has no identity, or one that buf has
 * no room for or that is no text. */
enum tls_hello tls_hello_identity(const uint8_t *p, size_t n, char *buf, size_t size);

#endif

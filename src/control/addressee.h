/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addressee: for which machine a new connection is, found out without taking a byte from it: whoever gets it
 * afterwards sees it from its beginning. A plain connection begins with HELLO, which has the name; one by TLS
 * with a ClientHello, whose identity of the key has it ("perdure:NAME"). Nothing of it is proved.
 */
#ifndef CONTROL_ADDRESSEE_H
#define CONTROL_ADDRESSEE_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

#define ADDRESSEE_NAME_MAX 64

/* Waits until it is known. peer: for errors. */
bool addressee_find(int fd, const char *peer, int64_t deadline, char ret_name[ADDRESSEE_NAME_MAX],
                    Error **errp);

enum addressee { ADDRESSEE_KNOWN, ADDRESSEE_MORE, ADDRESSEE_NONE };
/* The same of the first n bytes. */
enum addressee addressee_of(const uint8_t *p, size_t n, char ret_name[ADDRESSEE_NAME_MAX]);

#endif

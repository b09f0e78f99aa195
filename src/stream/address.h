/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses as the user types them. Inside of channel_address.c and listener.c.
 */
#ifndef STREAM_ADDRESS_H
#define STREAM_ADDRESS_H

#include <perdure/error.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

struct address {
    bool is_unix;
    char host[256]; /* without the brackets of IPv6 */
    char port[6];
    struct sockaddr_un path;
};

/* tcp:HOST:PORT, tcp:[IPV6]:PORT, unix:PATH */
bool address_parse(const char *text, struct address *ret_address, Error **errp);
/* The socket addresses of a TCP one; freeaddrinfo() afterwards. */
struct addrinfo *address_resolve(const struct address *a, const char *text, int flags, Error **errp);
/* "tcp:10.0.0.2:7700", "tcp:[::1]:7700"; "unix:" for what is not TCP. */
void address_format(const struct sockaddr *sa, socklen_t length, char *buf, size_t size);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/address.h"
#include "stream/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_unix(const char *path, struct address *a, const char *text, Error **errp)
{
    if (!*path) {
        error_setg(errp, "address '%s' names no socket file", text);
        return false;
    }
    if (strlen(path) >= sizeof(a->path.sun_path)) {
        error_setg(errp, "address '%s': the path is longer than %zu bytes", text,
                   sizeof(a->path.sun_path) - 1);
        return false;
    }
    a->is_unix = true;
    a->path.sun_family = AF_UNIX;
    memcpy(a->path.sun_path, path, strlen(path) + 1);
    return true;
}

static bool parse_port(const char *port, struct address *a, const char *text, Error **errp)
{
    char *end;
    unsigned long n = strtoul(port, &end, 10);

    if (*port < '0' || *port > '9' || *end || n > 65535) {
        error_setg(errp, "address '%s': '%s' is not a port number", text, port);
        return false;
    }
    snprintf(a->port, sizeof(a->port), "%lu", n);
    return true;
}

/* rest: HOST:PORT or [HOST]:PORT */
static bool parse_tcp(const char *rest, struct address *a, const char *text, Error **errp)
{
    const char *host = rest, *host_end = strrchr(rest, ':');
    const char *port = host_end ? host_end + 1 : NULL;

    if (*rest == '[') {
        host = rest + 1;
        host_end = strchr(host, ']');
        port = host_end && host_end[1] == ':' ? host_end + 2 : NULL;
    } else if (host_end && memchr(host, ':', (size_t)(host_end - host))) {
        error_setg(errp, "address '%s': put an IPv6 address into brackets, as in tcp:[::1]:7700", text);
        return false;
    }
    if (!port || host_end == host || (size_t)(host_end - host) >= sizeof(a->host)) {
        error_setg(errp, "address '%s' is not of the form tcp:HOST:PORT", text);
        return false;
    }
    memcpy(a->host, host, (size_t)(host_end - host));
    return parse_port(port, a, text, errp);
}

bool address_parse(const char *text, struct address *ret_address, Error **errp)
{
    struct address a = {0};
    bool ok = false;

    if (!strncmp(text, "tcp:", 4))
        ok = parse_tcp(text + 4, &a, text, errp);
    else if (!strncmp(text, "unix:", 5))
        ok = parse_unix(text + 5, &a, text, errp);
    else
        error_setg(errp, "address '%s' is neither tcp:HOST:PORT nor unix:PATH", text);
    if (ok)
        *ret_address = a;
    return ok;
}

struct addrinfo *address_resolve(const struct address *a, const char *text, int flags, Error **errp)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list;
    int r = getaddrinfo(a->host, a->port, &hints, &list);

    if (r) {
        error_setg(errp, "address '%s': cannot find host %s: %s", text, a->host,
                   r == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(r));
        return NULL;
    }
    return list;
}

void address_format(const struct sockaddr *sa, socklen_t length, char *buf, size_t size)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    bool v6 = sa->sa_family == AF_INET6;

    if ((sa->sa_family != AF_INET && !v6) ||
        getnameinfo(sa, length, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
        snprintf(buf, size, "unix:");
        return;
    }
    snprintf(buf, size, "tcp:%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

static bool is_loopback(const struct sockaddr *sa)
{
    const struct sockaddr_in6 *v6 = (const void *)sa;
    const struct sockaddr_in *v4 = (const void *)sa;

    if (sa->sa_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    if (sa->sa_family != AF_INET6)
        return false;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        return v6->sin6_addr.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

bool channel_address_is_local(const char *address)
{
    struct addrinfo *list;
    struct address a;
    bool local = true;

    if (!address_parse(address, &a, NULL))
        return !strcmp(address, "unix:") || !strncmp(address, "memory:", 7);
    if (a.is_unix)
        return true;
    list = address_resolve(&a, address, 0, NULL);
    if (!list)
        return false;
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next)
        local &= is_loopback(ai->ai_addr);
    freeaddrinfo(list);
    return local;
}

bool channel_peer_is_local(const Channel *ch)
{
    return channel_address_is_local(ch->peer);
}

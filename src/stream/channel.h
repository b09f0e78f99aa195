/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Channel: a reliable byte pipe to a peer, blocking and cancellable. Kinds: fd (tcp, unix, file), memory,
 * tls, and the simulator's link.
 *
 * One task reads and one task writes at a time (both at once is fine); channel_shutdown() may be called by
 * any task at any time and makes every call under way and every later one fail. channel_close() frees, after
 * the users are gone.
 *
 *     Channel *ch = channel_connect("tcp:10.0.0.2:7700", clock_now() + 5 * NS_PER_S, errp);
 *
 *     if (ch && psk)
 *         ch = channel_tls_client(ch, psk, errp);              // takes ch, also when it fails
 *     if (!ch)
 *         return false;
 *     channel_set_deadline(ch, clock_now() + timeout);
 *     ok = channel_write(ch, "ping", 4, errp) && channel_read_full(ch, answer, 4, errp);
 *     channel_close(ch);
 *
 * Errors name the peer; error_get_errno() is ETIMEDOUT (deadline), ECANCELED (shut down here), ECONNRESET or
 * EPIPE (the peer is gone). After a write that failed part of it may have arrived: the channel is of no use
 * for more than closing. A deadline that passed in a read harms nothing. Writes to a socket raise no SIGPIPE;
 * for pipes the program ignores that signal.
 */
#ifndef STREAM_CHANNEL_H
#define STREAM_CHANNEL_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

typedef struct Channel Channel;

struct channel_ops {
    /* >0 bytes; 0 end of stream; -1 with errp. Waits until at least one byte is there, or deadline (errno
     * ETIMEDOUT). */
    ssize_t (*read)(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp);
    /* Writes everything. */
    bool (*write)(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp);
    void (*shutdown)(Channel *ch);
    void (*close)(Channel *ch); /* frees ch */
};

struct Channel {
    const struct channel_ops *ops;
    char peer[80];    /* for messages: "tcp:10.0.0.2:7700" */
    int64_t deadline; /* of every call, a clock_now() time; TIME_NEVER unless set */
    /* implementations embed this as their first member */
};

ssize_t channel_read(Channel *ch, void *buf, size_t n, Error **errp);
/* All n bytes; an end of stream is an error (errno ECONNRESET: "PEER closed the connection"). */
bool channel_read_full(Channel *ch, void *buf, size_t n, Error **errp);
bool channel_write(Channel *ch, const void *buf, size_t n, Error **errp);
bool channel_writev(Channel *ch, const struct iovec *iov, int n, Error **errp);
/* Of the calls after this one, by any task; TIME_NEVER: none. */
void channel_set_deadline(Channel *ch, int64_t deadline);
void channel_shutdown(Channel *ch);
void channel_close(Channel *ch); /* NULL is fine */

/* fd: owned by the channel, closed also on failure (NULL: no memory). It becomes non-blocking, TCP_NODELAY
 * where it applies. */
Channel *channel_fd_new(int fd, const char *peer);
/* fd: stays the caller's, and as it is: a blocking one blocks, and shutdown does not end that. */
Channel *channel_fd_borrow(int fd, const char *peer);

/* Two ends in memory; they work on the simulator's fibers too. */
bool channel_pair_new(Channel *ret[2], Error **errp);

/* An address as the user types it: tcp:HOST:PORT, tcp:[IPV6]:PORT, unix:PATH. */
Channel *channel_connect(const char *address, int64_t deadline, Error **errp);

typedef struct Listener Listener;
/* Port 0: any free one. A Unix socket has mode 0600, must not exist yet, and is removed by the close. Also
 * fd:N, a socket that listens already (of a service manager), and handover:PATH (handover.h), where a socket
 * that nobody answers is replaced. */
Listener *listener_new(const char *address, Error **errp);
/* Waits; NULL with errp when shut down or broken. */
Channel *listener_accept(Listener *l, Error **errp);
const char *listener_address(const Listener *l); /* with the port really bound */
void listener_shutdown(Listener *l);
void listener_close(Listener *l);
/* false: the address (or the peer of an accepted channel) is beyond loopback and unix, or cannot be told. May
 * ask the resolver. */
bool channel_address_is_local(const char *address);
bool channel_peer_is_local(const Channel *ch);
/* Of a channel that channel_fd_new() or a listener made. */
int channel_fd_get(const Channel *ch);

/* TLS 1.3 with a pre-shared key (gnutls, PSK from a file that `perdure keygen` makes). Takes ch, also on
 * failure; waits for the handshake at most until the deadline of ch, which the new channel inherits. The key
 * is borrowed during the call only. A read ends with 0 only if the peer closed its channel; a connection that
 * was cut is ECONNRESET. */
struct channel_psk; /* a loaded key */
struct channel_psk *channel_psk_load(const char *path, Error **errp);
bool channel_psk_generate(const char *path, Error **errp); /* refuses to overwrite; mode 0600 */
/* Clients say in clear for which machine they come, so that several can share a port. "": they do not. */
void channel_psk_set_machine(struct channel_psk *psk, const char *name);
void channel_psk_free(struct channel_psk *psk);
Channel *channel_tls_client(Channel *ch, const struct channel_psk *psk, Error **errp);
Channel *channel_tls_server(Channel *ch, const struct channel_psk *psk, Error **errp);

#endif

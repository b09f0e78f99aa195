/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS 1.3 over another channel, both sides proved by a pre-shared key, with fresh Diffie-Hellman keys for
 * every connection.
 *
 * A gnutls session is not for two threads, and a change of keys on the one side touches what the other uses.
 * So the session never waits: it takes encrypted bytes from `in` and leaves them in `out`, under the lock;
 * the waiting is done here, outside of it:
 *
 *     reader:  inner channel -> in  -> session -> the caller          writer:  the caller -> session -> out
 * -> sending -> inner
 */
#include "stream/channel_psk.h"
#include "base/task.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* AES first: every x86-64 host of today has it in hardware. By itself GnuTLS comes to ChaCha20 with such a key (its hash is
 * SHA-256, and AES-256 wants another), which costs four times as much. */
#define PRIORITY                                                                                             \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305"
#define BUFFER     (128 * 1024)
#define RECORD     (16 * 1024)
#define OVERHEAD   1024 /* generous, of a record, and of what a change of keys adds */
#define BATCH      (64 * 1024)
#define BYE_TIME   (100 * NS_PER_MS)
#define FIRST_NONE (-1)

struct tls_channel {
    Channel ch;
    Channel *inner;
    gnutls_session_t session;
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    const struct channel_psk *psk; /* during the handshake */

    uint8_t in[BUFFER]; /* the reader's */
    size_t in_at, in_size;
    bool in_end;
    int first_byte; /* that ever came */

    struct task_mutex lock; /* session, out */
    uint8_t *out;
    size_t out_used;

    uint8_t *sending; /* the writer's */
    bool broken;
    uint8_t buffers[2][BUFFER]; /* out and sending, in turn */
};

/* --- what gnutls calls; lock held, or handshake --- */

static ssize_t pull(gnutls_transport_ptr_t opaque, void *buf, size_t n)
{
    struct tls_channel *t = opaque;

    if (t->in_at == t->in_size) {
        if (t->in_end)
            return 0;
        gnutls_transport_set_errno(t->session, EAGAIN);
        return -1;
    }
    n = n < t->in_size - t->in_at ? n : t->in_size - t->in_at;
    memcpy(buf, t->in + t->in_at, n);
    t->in_at += n;
    return (ssize_t)n;
}

static int pull_timeout(gnutls_transport_ptr_t opaque, unsigned int ms)
{
    struct tls_channel *t = opaque;

    (void)ms;
    return t->in_at < t->in_size || t->in_end;
}

static ssize_t push(gnutls_transport_ptr_t opaque, const void *buf, size_t n)
{
    struct tls_channel *t = opaque;

    if (n > BUFFER - t->out_used) {
        gnutls_transport_set_errno(t->session, EAGAIN);
        return -1;
    }
    memcpy(t->out + t->out_used, buf, n);
    t->out_used += n;
    return (ssize_t)n;
}

static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *ret_key)
{
    struct tls_channel *t = gnutls_session_get_ptr(session);

    size_t prefix = strlen(CHANNEL_PSK_IDENTITY);

    /* What it says of the machine, HELLO says again, and that counts. */
    if (strncmp(name, CHANNEL_PSK_IDENTITY, prefix) || (name[prefix] && name[prefix] != ':'))
        return -1;
    ret_key->data = gnutls_malloc(PSK_SIZE);
    if (!ret_key->data)
        return -1;
    memcpy(ret_key->data, t->psk->key, PSK_SIZE);
    ret_key->size = PSK_SIZE;
    return 0;
}

/* --- between the buffers and the inner channel --- */

/* in is empty: waits for more of it. */
static bool fill(struct tls_channel *t, int64_t deadline, Error **errp)
{
    ssize_t n = t->inner->ops->read(t->inner, t->in, sizeof(t->in), deadline, errp);

    if (n < 0)
        return false;
    if (n > 0 && t->first_byte == FIRST_NONE)
        t->first_byte = t->in[0];
    t->in_at = 0;
    t->in_size = (size_t)n;
    t->in_end = n == 0;
    return true;
}

static bool drain(struct tls_channel *t, int64_t deadline, Error **errp)
{
    struct iovec iov;

    task_lock(&t->lock);
    iov = (struct iovec){.iov_base = t->out, .iov_len = t->out_used};
    t->out = t->sending;
    t->out_used = 0;
    t->sending = iov.iov_base;
    task_unlock(&t->lock);
    if (!iov.iov_len)
        return true;
    if (t->inner->ops->write(t->inner, &iov, 1, deadline, errp))
        return true;
    t->broken = true; /* part of a record may be gone */
    return false;
}

/* --- channel operations --- */

static void read_failed(struct tls_channel *t, ssize_t r, Error **errp)
{
    if (r == GNUTLS_E_PREMATURE_TERMINATION)
        error_setg_errno(errp, ECONNRESET, "%s closed the connection without saying good-bye", t->ch.peer);
    else
        error_setg_errno(errp, EPROTO, "cannot read from %s: TLS: %s", t->ch.peer, gnutls_strerror((int)r));
}

static ssize_t tls_read(Channel *ch, void *buf, size_t n, int64_t deadline, Error **errp)
{
    struct tls_channel *t = (struct tls_channel *)ch;
    size_t done = 0;
    ssize_t r;

    for (;;) {
        task_lock(&t->lock);
        r = gnutls_record_recv(t->session, (uint8_t *)buf + done, n - done);
        task_unlock(&t->lock);
        if (r > 0)
            done += (size_t)r;
        /* What came with the first record is taken along; an end or error after it is told next time. */
        if (done == n || (done && r <= 0))
            return (ssize_t)done;
        if (r == 0)
            return 0;
        if (r == GNUTLS_E_AGAIN) {
            if (!fill(t, deadline, errp))
                return -1;
        } else if (r < 0 && gnutls_error_is_fatal((int)r)) {
            read_failed(t, r, errp);
            return -1;
        }
    }
}

/* Encrypts one buffer into out, which goes out whenever a batch is full. */
static bool send_one(struct tls_channel *t, const struct iovec *iov, int64_t deadline, Error **errp)
{
    const uint8_t *p = iov->iov_base;
    size_t left = iov->iov_len;

    while (left) {
        size_t used, n = left < RECORD ? left : RECORD;
        ssize_t r;

        task_lock(&t->lock);
        r = gnutls_record_send(t->session, p, n);
        used = t->out_used;
        task_unlock(&t->lock);
        if (r <= 0) {
            t->broken = true;
            error_setg_errno(errp, EPROTO, "cannot write to %s: TLS: %s", t->ch.peer,
                             gnutls_strerror((int)r));
            return false;
        }
        p += r;
        left -= (size_t)r;
        if ((used >= BATCH || BUFFER - used < RECORD + OVERHEAD) && !drain(t, deadline, errp))
            return false;
    }
    return true;
}

static bool tls_write(Channel *ch, const struct iovec *iov, int n, int64_t deadline, Error **errp)
{
    struct tls_channel *t = (struct tls_channel *)ch;

    if (t->broken) {
        error_setg_errno(errp, EPIPE, "cannot write to %s after a write that failed", ch->peer);
        return false;
    }
    for (int i = 0; i < n; i++)
        if (!send_one(t, &iov[i], deadline, errp))
            return false;
    return drain(t, deadline, errp);
}

static void tls_shutdown(Channel *ch)
{
    struct tls_channel *t = (struct tls_channel *)ch;

    channel_shutdown(t->inner);
}

static void tls_free(struct tls_channel *t)
{
    if (!t)
        return;
    if (t->session)
        gnutls_deinit(t->session);
    if (t->client)
        gnutls_psk_free_client_credentials(t->client);
    if (t->server)
        gnutls_psk_free_server_credentials(t->server);
    channel_close(t->inner);
    task_mutex_destroy(&t->lock);
    explicit_bzero(t, sizeof(*t));
    free(t);
}

static void tls_close(Channel *ch)
{
    struct tls_channel *t = (struct tls_channel *)ch;

    /* So that the peer can tell an end from a cut. It is not worth a long wait. */
    if (!t->broken) {
        gnutls_bye(t->session, GNUTLS_SHUT_WR);
        drain(t, clock_now() + BYE_TIME, NULL);
    }
    tls_free(t);
}

static const struct channel_ops tls_ops = {
    .read = tls_read,
    .write = tls_write,
    .shutdown = tls_shutdown,
    .close = tls_close,
};

/* --- the handshake --- */

static int set_credentials(struct tls_channel *t, bool server)
{
    gnutls_datum_t key = {.data = (unsigned char *)t->psk->key, .size = PSK_SIZE};
    int r;

    if (server) {
        r = gnutls_psk_allocate_server_credentials(&t->server);
        if (r < 0)
            return r;
        gnutls_psk_set_server_credentials_function(t->server, find_key);
        return gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->server);
    }
    r = gnutls_psk_allocate_client_credentials(&t->client);
    if (r >= 0)
        r = gnutls_psk_set_client_credentials(t->client, t->psk->identity, &key, GNUTLS_PSK_KEY_RAW);
    return r < 0 ? r : gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->client);
}

/* Tickets would be a second way in, and traffic at a time of the library's choosing. */
static int set_up(struct tls_channel *t, bool server)
{
    unsigned int flags =
        (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL;
    int r = gnutls_init(&t->session, flags);

    if (r < 0)
        return r;
    gnutls_session_set_ptr(t->session, t);
    gnutls_transport_set_ptr(t->session, t);
    gnutls_transport_set_pull_function(t->session, pull);
    gnutls_transport_set_pull_timeout_function(t->session, pull_timeout);
    gnutls_transport_set_push_function(t->session, push);
    r = gnutls_priority_set_direct(t->session, PRIORITY, NULL);
    return r < 0 ? r : set_credentials(t, server);
}

static void handshake_failed(struct tls_channel *t, int r, Error **errp)
{
    if (t->first_byte == FIRST_NONE)
        error_setg_errno(errp, ECONNRESET,
                         "%s closed the connection instead of beginning TLS (is --psk given on both sides?)",
                         t->ch.peer);
    else if (t->first_byte != 0x15 && t->first_byte != 0x16) /* alert, handshake */
        error_setg(errp, "%s does not speak TLS (is --psk given on both sides?)", t->ch.peer);
    else if (r == GNUTLS_E_PREMATURE_TERMINATION)
        error_setg_errno(errp, ECONNRESET, "%s closed the connection in the middle of the TLS handshake",
                         t->ch.peer);
    else
        error_setg(errp, "%s: authentication failed (is the key file the same on both sides?)", t->ch.peer);
}

static bool handshake(struct tls_channel *t, Error **errp)
{
    int64_t deadline = t->inner->deadline;
    int r;

    for (;;) {
        r = gnutls_handshake(t->session);
        if (r < 0 && gnutls_error_is_fatal(r)) {
            handshake_failed(t, r, errp);
            gnutls_alert_send_appropriate(t->session, r);
            drain(t, deadline, NULL); /* the peer's error is its own affair */
            return false;
        }
        if (!drain(t, deadline, errp))
            return false;
        if (r == GNUTLS_E_SUCCESS)
            return true;
        if (r == GNUTLS_E_AGAIN && !fill(t, deadline, errp))
            return false;
    }
}

static Channel *tls_new(Channel *inner, const struct channel_psk *psk, bool server, Error **errp)
{
    struct tls_channel *t = calloc(1, sizeof(*t));
    int r;

    if (!t) {
        error_setg_errno(errp, ENOMEM, "cannot begin TLS with %s", inner->peer);
        channel_close(inner);
        return NULL;
    }
    task_mutex_init(&t->lock);
    t->ch.ops = &tls_ops;
    t->ch.deadline = inner->deadline;
    snprintf(t->ch.peer, sizeof(t->ch.peer), "%s", inner->peer);
    t->inner = inner;
    t->psk = psk;
    t->first_byte = FIRST_NONE;
    t->out = t->buffers[0];
    t->sending = t->buffers[1];
    r = set_up(t, server);
    if (r < 0)
        error_setg(errp, "cannot begin TLS with %s: %s", inner->peer, gnutls_strerror(r));
    if (r < 0 || !handshake(t, errp)) {
        tls_free(t);
        return NULL;
    }
    t->psk = NULL;
    return &t->ch;
}

Channel *channel_tls_client(Channel *ch, const struct channel_psk *psk, Error **errp)
{
    return tls_new(ch, psk, false, errp);
}

Channel *channel_tls_server(Channel *ch, const struct channel_psk *psk, Error **errp)
{
    return tls_new(ch, psk, true, errp);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/transport_socket.h"
#include "base/task.h"
#include "engine/doorman.h"

#include <stdio.h>
#include <stdlib.h>

#define HANDSHAKE_LIMIT (5 * NS_PER_S)
#define STARTING_LIMIT                                                                                       \
    (30 * NS_PER_S) /* what answers may be a standby that is started for us: it replays its journal */

/* Replaced ones are kept until the end: a handshake may be under way with them. */
struct security {
    struct channel_psk *psk; /* NULL: plain */
    bool insecure;
    struct security *older;
};

struct transport_socket {
    struct transport t;
    char vm[64];
    struct task_mutex lock;
    struct security *security; /* of connections made here; NULL: with the key of those accepted */
    struct security *
        listening; /* of those accepted: given when listening began; NULL: plain, and only within this host */
    struct security *all;
    Listener *listener;
    Doorman *doorman; /* made by the first accept */
};

/* What it points to stays valid as long as the transport. */
static struct security security_of(struct transport_socket *ts, struct security *const *which)
{
    struct security sec = {0};

    task_lock(&ts->lock);
    if (*which)
        sec = **which;
    task_unlock(&ts->lock);
    return sec;
}

/* Nothing said: with the key of those who come, which is the pair's. */
static struct security outgoing(struct transport_socket *ts)
{
    struct security sec = {0};

    task_lock(&ts->lock);
    if (ts->security)
        sec = *ts->security;
    else if (ts->listening)
        sec.psk = ts->listening->psk;
    task_unlock(&ts->lock);
    return sec;
}

static Channel *socket_connect(struct transport *t, const char *address, int64_t deadline, Error **errp)
{
    struct transport_socket *ts = t->opaque;
    struct security sec = outgoing(ts);
    Channel *ch;

    if (!sec.psk && !sec.insecure && !channel_address_is_local(address)) {
        error_setg(
            errp,
            "%s is beyond this host: the connection needs --psk FILE (make one with `perdure keygen`), or "
            "an explicit --insecure",
            address);
        return NULL;
    }
    ch = channel_connect(address, deadline, errp);
    if (ch && sec.psk) {
        channel_set_deadline(ch, clock_now() + STARTING_LIMIT);
        ch = channel_tls_client(ch, sec.psk, errp);
    }
    if (ch)
        channel_set_deadline(ch, TIME_NEVER);
    return ch;
}

/* Takes ch; NULL: refused. */
static Channel *authenticate(void *opaque, Channel *ch, Error **errp)
{
    struct transport_socket *ts = opaque;
    struct security sec = security_of(ts, &ts->listening);

    if (!sec.psk && !sec.insecure && !channel_peer_is_local(ch)) {
        error_setg(errp,
                   "refused %s: it comes from beyond this host, and neither --psk nor --insecure was given",
                   ch->peer);
        channel_close(ch);
        return NULL;
    }
    if (sec.psk) {
        channel_set_deadline(ch, clock_now() + HANDSHAKE_LIMIT);
        ch = channel_tls_server(ch, sec.psk, errp);
    }
    if (ch)
        channel_set_deadline(ch, TIME_NEVER);
    return ch;
}

static Channel *socket_accept(struct transport *t, Error **errp)
{
    struct transport_socket *ts = t->opaque;

    if (!ts->listener) {
        error_setg(errp, "this side does not listen");
        return NULL;
    }
    if (!ts->doorman)
        ts->doorman = doorman_new(ts->listener, authenticate, ts, errp);
    return ts->doorman ? doorman_accept(ts->doorman, errp) : NULL;
}

static void socket_shutdown(struct transport *t)
{
    struct transport_socket *ts = t->opaque;

    if (ts->listener)
        listener_shutdown(ts->listener);
}

struct transport *transport_socket_new(const char *vm, Error **errp)
{
    struct transport_socket *ts = calloc(1, sizeof(*ts));

    if (!ts) {
        error_setg(errp, "out of memory");
        return NULL;
    }
    snprintf(ts->vm, sizeof(ts->vm), "%s", vm);
    task_mutex_init(&ts->lock);
    ts->t = (struct transport){
        .connect = socket_connect, .accept = socket_accept, .shutdown = socket_shutdown, .opaque = ts};
    return &ts->t;
}

/* psk_path empty: none. Put into *which, and kept until the end. */
static bool set_security(struct transport_socket *ts, struct security **which, const char *psk_path,
                         bool insecure, Error **errp)
{
    struct security *sec = calloc(1, sizeof(*sec));

    if (!sec) {
        error_setg(errp, "out of memory");
        return false;
    }
    sec->insecure = insecure;
    sec->psk = psk_path[0] ? channel_psk_load(psk_path, errp) : NULL;
    if (psk_path[0] && !sec->psk) {
        free(sec);
        return false;
    }
    if (sec->psk)
        channel_psk_set_machine(sec->psk, ts->vm);
    task_lock(&ts->lock);
    sec->older = ts->all;
    ts->all = *which = sec;
    task_unlock(&ts->lock);
    return true;
}

bool transport_socket_set_security(struct transport *t, const char *psk_path, bool insecure, Error **errp)
{
    struct transport_socket *ts = t->opaque;

    return set_security(ts, &ts->security, psk_path, insecure, errp);
}

bool transport_socket_listen(struct transport *t, const char *address, const char *psk_path, bool insecure,
                             const char **ret_address, Error **errp)
{
    struct transport_socket *ts = t->opaque;

    if (!set_security(ts, &ts->listening, psk_path, insecure, errp))
        return false;
    ts->listener = listener_new(address, errp);
    if (ts->listener && ret_address)
        *ret_address = listener_address(ts->listener);
    return ts->listener;
}

void transport_socket_free(struct transport *t)
{
    struct transport_socket *ts = t ? t->opaque : NULL;

    if (!ts)
        return;
    socket_shutdown(t);
    doorman_free(ts->doorman);
    listener_close(ts->listener);
    while (ts->all) {
        struct security *sec = ts->all;

        ts->all = sec->older;
        channel_psk_free(sec->psk);
        free(sec);
    }
    task_mutex_destroy(&ts->lock);
    free(ts);
}

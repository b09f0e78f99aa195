/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connecting: the primary opens the connections of a link, one after the other, and greets on each.
 */
#include "engine/session.h"
#include "base/random.h"

#define FOLLOW_LIMIT  (2 * NS_PER_S)  /* output waits */
#define GREETED_LIMIT (30 * NS_PER_S) /* a standby that is started for us replays its journal first */

struct session *session_dial(Engine *e, const char *to, const struct wire_hello *hello, int64_t limit,
                             Error **errp)
{
    Channel *ch = e->transport->connect(e->transport, to, clock_now() + limit, errp);
    struct session *s = ch ? session_new(e, ch, to, hello, errp) : NULL;

    if (s)
        s->primary = true;
    return s;
}

bool session_introduce(struct session *s, Error **errp)
{
    session_set_limit(s, GREETED_LIMIT);
    return session_greet(s->in, s->out, &s->hello, errp);
}

struct session *session_connect(Engine *e, const char *to, const struct wire_hello *hello, Error **errp)
{
    struct session *s = session_dial(e, to, hello, SESSION_CONNECT_LIMIT, errp);

    if (!s || ((s->arbiter = arbiter_new(hello->arbiter, errp)) && session_introduce(s, errp)))
        return s;
    session_free(s);
    return NULL;
}

static bool greet_on(Channel *ch, const struct wire_hello *hello, Error **errp)
{
    VMStream *in = vmstream_new_reader(ch), *out = vmstream_new_writer(ch);
    bool ok = false;

    if (in && out)
        ok = session_greet(in, out, hello, errp);
    else
        error_setg(errp, "out of memory");
    perdure_stream_close(in);
    perdure_stream_close(out);
    return ok;
}

/* One beside the main connection. */
static bool connect_other(struct session *s, enum wire_kind kind, unsigned lane, Channel **which,
                          Error **errp)
{
    Engine *e = s->e;
    struct wire_hello hello = s->hello;
    Channel *ch = e->transport->connect(e->transport, s->peer, clock_now() + SESSION_CONNECT_LIMIT, errp);

    if (!ch)
        return false;
    ch = link_wrap(&s->link, ch);
    if (!ch) {
        error_setg(errp, "out of memory");
        return false;
    }
    link_set(&s->link, which, ch);
    hello.kind = kind;
    hello.lane = (uint8_t)lane;
    channel_set_deadline(ch, clock_now() + SESSION_CONNECT_LIMIT);
    return greet_on(ch, &hello, errp);
}

static bool connect_channels(struct session *s, Error **errp)
{
    bool ok = true;

    for (unsigned i = 1; i <= s->hello.lanes && ok; i++)
        ok = connect_other(s, WIRE_KIND_CHANNEL, i, &s->link.lanes[i - 1], errp);
    return ok;
}

bool session_connect_others(struct session *s, Error **errp)
{
    return connect_other(s, WIRE_KIND_HEARTBEAT, 0, &s->link.beat, errp) &&
           (!s->hello.postcopy || connect_other(s, WIRE_KIND_URGENT, 0, &s->link.urgent, errp)) &&
           connect_channels(s, errp) && link_start(&s->link, true, errp);
}

static bool introduce_both(struct session *s, Error **errp)
{
    session_set_limit(s, FOLLOW_LIMIT);
    return session_greet(s->in, s->out, &s->hello, errp) &&
           connect_other(s, WIRE_KIND_HEARTBEAT, 0, &s->link.beat, errp);
}

struct session *session_follow(Engine *e, const char *to, const struct wire_hello *hello, Error **errp)
{
    struct session *s = session_dial(e, to, hello, FOLLOW_LIMIT, errp);

    if (!s)
        return NULL;
    random_bytes(&s->hello.session, sizeof(s->hello.session));
    if (introduce_both(s, errp))
        return s;
    session_free(s);
    return NULL;
}

/* *ret_fetched: there is nothing left to do. */
static bool greet_anew(struct session *s, bool *ret_fetched, Error **errp)
{
    struct wire_hello hello = s->hello;
    uint16_t type;
    uint64_t id;

    hello.kind = WIRE_KIND_RESUME;
    session_set_limit(s, SESSION_CONNECT_LIMIT);
    if (!wire_send_hello(s->out, &hello, errp) || !wire_next(s->in, &type, &id, errp))
        return false;
    *ret_fetched = type == WIRE_FETCHED;
    return session_greeted(s->in, type, *ret_fetched ? WIRE_FETCHED : WIRE_HELLO_OK, errp);
}

bool session_reconnect(struct session *s, bool *ret_fetched, Error **errp)
{
    Engine *e = s->e;
    Channel *ch = e->transport->connect(e->transport, s->peer, clock_now() + SESSION_CONNECT_LIMIT, errp);

    *ret_fetched = false;
    if (!ch)
        return false;
    random_bytes(&s->hello.session, sizeof(s->hello.session));
    s->hello.lanes = 0; /* of what is pushed */
    return session_relink(s, ch, errp) && greet_anew(s, ret_fetched, errp) &&
           (*ret_fetched || session_connect_others(s, errp));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wire.h"
#include "base/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TIME_MIN    NS_PER_US
#define TIME_MAX    (3600 * NS_PER_S)
#define TIMEOUT_MIN (20 * NS_PER_MS) /* the link looks at its clock several times in one */

bool wire_next(VMStream *in, uint16_t *type, uint64_t *id, Error **errp)
{
    while (perdure_stream_next(in, type, id)) {
        if (!(*type & PERDURE_RECORD_OPTIONAL))
            return true;
        perdure_stream_skip(in);
    }
    /* Sticky, like any other loss of the link; kept only if there is no error yet. */
    perdure_stream_set_error(in, -ECONNRESET, "the other side closed the connection");
    perdure_stream_error(in, errp);
    return false;
}

bool wire_done(VMStream *in, Error **errp)
{
    perdure_stream_done(in);
    return !perdure_stream_error(in, errp);
}

bool wire_send(VMStream *out, enum wire_record type, uint64_t id, Error **errp)
{
    perdure_stream_begin(out, (uint16_t)type, id);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

bool wire_send_text(VMStream *out, enum wire_record type, const char *text, Error **errp)
{
    char cut[WIRE_TEXT_MAX];
    size_t n = strnlen(text, sizeof(cut) - 1);

    memcpy(cut, text, n);
    cut[n] = 0;
    perdure_stream_begin(out, (uint16_t)type, 0);
    perdure_stream_put_string(out, cut);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

bool wire_get_text(VMStream *in, char text[WIRE_TEXT_MAX], Error **errp)
{
    text[0] = 0;
    perdure_stream_get_string(in, text, WIRE_TEXT_MAX);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' && *p != '\n')
            *p = '?';
    return wire_done(in, errp);
}

void wire_unexpected(VMStream *in, uint16_t type, const char *while_what)
{
    perdure_stream_set_error(in, -EBADMSG, "unexpected record of type 0x%x while %s", type, while_what);
}

const char *wire_kind_name(enum wire_kind kind)
{
    static const char *const names[WIRE_KINDS] = {"main",     "heartbeat", "checking",  "main",   "urgent",
                                                  "new main", "main",      "primary's", "channel"};

    return names[kind];
}

bool wire_send_hello(VMStream *out, const struct wire_hello *h, Error **errp)
{
    perdure_stream_begin(out, WIRE_HELLO, 0);
    perdure_stream_put_u32(out, WIRE_MAGIC);
    perdure_stream_put_u16(out, WIRE_VERSION);
    perdure_stream_put_u8(out, (uint8_t)h->kind);
    perdure_stream_put_string(out, h->vm);
    perdure_stream_put_string(out, h->pair);
    perdure_stream_put_u64(out, h->generation);
    perdure_stream_put_u64(out, h->session);
    perdure_stream_put_u64(out, (uint64_t)h->timeout_ns);
    perdure_stream_put_u64(out, (uint64_t)h->interval_ns);
    perdure_stream_put_u64(out, (uint64_t)h->min_epoch_ns);
    perdure_stream_put_u32(out, h->verify_every);
    perdure_stream_put_u8(out, (uint8_t)(h->delta | h->postcopy << 1));
    perdure_stream_put_string(out, h->arbiter);
    perdure_stream_put_u64(out, h->ram_size);
    perdure_stream_put_string(out, h->went_on_pair);
    perdure_stream_put_u64(out, h->went_on_generation);
    perdure_stream_put_u8(out, h->lanes);
    perdure_stream_put_u8(out, h->lane);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

static int64_t get_time(VMStream *in, const char *name, uint64_t least)
{
    uint64_t t = perdure_stream_get_u64(in);

    if (t < least || t > TIME_MAX)
        perdure_stream_set_error(in, -EBADMSG, "the %s of the peer, %" PRIu64 " ns, is out of range", name,
                                 t);
    return (int64_t)t;
}

static void get_hello_fields(VMStream *in, struct wire_hello *h)
{
    uint8_t flags;

    h->kind = perdure_stream_get_u8(in);
    perdure_stream_get_string(in, h->vm, sizeof(h->vm));
    perdure_stream_get_string(in, h->pair, sizeof(h->pair));
    h->generation = perdure_stream_get_u64(in);
    h->session = perdure_stream_get_u64(in);
    h->timeout_ns = get_time(in, "timeout", TIMEOUT_MIN);
    h->interval_ns = get_time(in, "interval", TIME_MIN);
    h->min_epoch_ns = get_time(in, "shortest epoch", TIME_MIN);
    h->verify_every = perdure_stream_get_u32(in);
    flags = perdure_stream_get_u8(in);
    h->delta = flags & 1;
    h->postcopy = flags >> 1 & 1;
    perdure_stream_get_string(in, h->arbiter, sizeof(h->arbiter));
    h->ram_size = perdure_stream_get_u64(in);
    perdure_stream_get_string(in, h->went_on_pair, sizeof(h->went_on_pair));
    h->went_on_generation = perdure_stream_get_u64(in);
    h->lanes = perdure_stream_get_u8(in);
    h->lane = perdure_stream_get_u8(in);
}

/* It goes into messages, logs and the status as it is. */
static bool printable(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

static bool lanes_make_sense(const struct wire_hello *h)
{
    bool migrates = h->kind != WIRE_KIND_MAIN && h->kind != WIRE_KIND_CHECK &&
                    h->kind != WIRE_KIND_SUCCESSOR && h->kind != WIRE_KIND_FOLLOW;

    return h->lanes <= (migrates ? LANES_MAX : 0) && h->lane <= h->lanes &&
           (h->kind == WIRE_KIND_CHANNEL) == (h->lane > 0);
}

static bool hello_makes_sense(const struct wire_hello *h)
{
    return h->kind < WIRE_KINDS && lanes_make_sense(h) && uuid_valid(h->pair) && printable(h->vm) &&
           printable(h->arbiter) && h->generation > 0 &&
           h->generation < UINT64_MAX && /* the next one has a number too */
           (!h->went_on_pair[0] || uuid_valid(h->went_on_pair));
}

bool wire_get_hello(VMStream *in, struct wire_hello *ret_hello, Error **errp)
{
    uint32_t magic = perdure_stream_get_u32(in);
    uint16_t version = perdure_stream_get_u16(in);
    struct wire_hello h = {0};

    if (!perdure_stream_error(in, NULL) && magic != WIRE_MAGIC)
        perdure_stream_set_error(in, -EPROTO, "the peer does not speak Perdure's protocol");
    else if (!perdure_stream_error(in, NULL) && version != WIRE_VERSION)
        perdure_stream_set_error(
            in, -EPROTO,
            "the peer speaks version %u of the protocol, this build speaks %u: install the "
            "same release on both hosts",
            version, WIRE_VERSION);
    if (perdure_stream_error(in, errp))
        return false;
    get_hello_fields(in, &h);
    if (!perdure_stream_error(in, NULL) && !hello_makes_sense(&h))
        perdure_stream_set_error(in, -EBADMSG, "the peer's greeting makes no sense");
    if (!wire_done(in, errp))
        return false;
    *ret_hello = h;
    return true;
}

bool wire_send_config(VMStream *out, const VMStream *config, Error **errp)
{
    size_t size;
    const void *data = perdure_stream_memory(config, &size);

    if (perdure_stream_error(config, errp))
        return false;
    if (size > WIRE_CONFIG_MAX) {
        error_setg(errp, "kernel and initrd are %zu MiB, at most %u MiB can be sent to a backup", size >> 20,
                   WIRE_CONFIG_MAX >> 20);
        return false;
    }
    perdure_stream_begin(out, WIRE_CONFIG, 0);
    perdure_stream_put_u64(out, size);
    perdure_stream_put_buffer(out, data, size);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

/* The buffer grows with what has come, not with what was announced. */
static uint8_t *get_bytes(VMStream *in, uint64_t size)
{
    uint8_t *data = malloc(1);
    size_t have = 0;

    while (data && have < size) {
        size_t n = size - have < PERDURE_STREAM_CHUNK ? (size_t)(size - have) : PERDURE_STREAM_CHUNK;
        uint8_t *grown = realloc(data, have + n);

        if (!grown || !perdure_stream_get_buffer(in, grown + have, n)) {
            free(grown ?: data);
            data = NULL;
            break;
        }
        data = grown;
        have += n;
    }
    if (!data)
        perdure_stream_set_error(in, -ENOMEM, "no memory for the configuration");
    return data;
}

bool wire_get_config(VMStream *in, void **ret_data, size_t *ret_size, Error **errp)
{
    uint64_t size = perdure_stream_get_u64(in);
    void *data;

    if (!perdure_stream_error(in, NULL) && size > WIRE_CONFIG_MAX)
        perdure_stream_set_error(in, -EBADMSG, "a configuration of %" PRIu64 " bytes is too large", size);
    if (perdure_stream_error(in, errp))
        return false;
    data = get_bytes(in, size);
    if (!wire_done(in, errp)) {
        free(data);
        return false;
    }
    *ret_data = data;
    *ret_size = (size_t)size;
    return true;
}

bool wire_send_end(VMStream *out, const struct wire_end *end, Error **errp)
{
    perdure_stream_begin(out, WIRE_END, end->epoch);
    perdure_stream_put_u64(out, end->generation);
    perdure_stream_put_u64(out, end->pages);
    perdure_stream_put_u64(out, end->hash);
    perdure_stream_put_u32(out, end->crc);
    perdure_stream_put_u8(out, end->flags);
    perdure_stream_put_u8(out, end->request);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

bool wire_get_end(VMStream *in, struct wire_end *ret_end, Error **errp)
{
    ret_end->generation = perdure_stream_get_u64(in);
    ret_end->pages = perdure_stream_get_u64(in);
    ret_end->hash = perdure_stream_get_u64(in);
    ret_end->crc = perdure_stream_get_u32(in);
    ret_end->flags = perdure_stream_get_u8(in);
    ret_end->request = perdure_stream_get_u8(in);
    if (!perdure_stream_error(in, NULL) && ret_end->request > GUEST_REQUEST_PANIC)
        perdure_stream_set_error(in, -EBADMSG, "the end of an epoch carries request %u", ret_end->request);
    return wire_done(in, errp);
}

bool wire_send_ack(VMStream *out, const struct wire_ack *ack, Error **errp)
{
    perdure_stream_begin(out, WIRE_ACK, ack->epoch);
    perdure_stream_put_u64(out, ack->generation);
    perdure_stream_put_u32(out, ack->crc);
    perdure_stream_put_u8(out, ack->flags);
    perdure_stream_end(out);
    return perdure_stream_flush(out, errp);
}

bool wire_get_ack(VMStream *in, struct wire_ack *ret_ack, Error **errp)
{
    ret_ack->generation = perdure_stream_get_u64(in);
    ret_ack->crc = perdure_stream_get_u32(in);
    ret_ack->flags = perdure_stream_get_u8(in);
    return wire_done(in, errp);
}

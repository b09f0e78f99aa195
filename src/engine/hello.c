/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/session.h"

#include <errno.h>
#include <string.h>

#define CONFIG_RESERVE (64 * 1024)

/* The answer of that type is open; a refusal's text is the error. */
static bool expect_this(VMStream *in, uint16_t type, enum wire_record want, const char *while_what,
                        Error **errp)
{
    char text[WIRE_TEXT_MAX];

    if (type == WIRE_REFUSE || type == WIRE_FAIL) {
        if (wire_get_text(in, text, errp))
            error_setg(errp, "%s", text);
        return false;
    }
    if (type != want)
        wire_unexpected(in, type, while_what);
    return wire_done(in, errp);
}

static bool expect(VMStream *in, enum wire_record want, const char *while_what, Error **errp)
{
    uint16_t type;
    uint64_t id;

    return wire_next(in, &type, &id, errp) && expect_this(in, type, want, while_what, errp);
}

bool session_greeted(VMStream *in, uint16_t type, enum wire_record want, Error **errp)
{
    return expect_this(in, type, want, "waiting for the answer to a greeting", errp);
}

bool session_greet(VMStream *in, VMStream *out, const struct wire_hello *h, Error **errp)
{
    Error *err = NULL;

    if (wire_send_hello(out, h, &err) &&
        expect(in, WIRE_HELLO_OK, "waiting for the answer to a greeting", &err))
        return true;
    /* A side that wants TLS takes our greeting for a bad handshake, and hangs up. */
    if (error_get_errno(err) == ECONNRESET || error_get_errno(err) == EPIPE)
        error_prepend(&err, "no answer to the greeting (does the other side expect a key? --psk): ");
    error_propagate(errp, err);
    return false;
}

bool session_send_config(VMStream *in, VMStream *out, Guest *g, Error **errp)
{
    VMStream *config = perdure_stream_open_memory(CONFIG_RESERVE);
    bool ok = false;

    if (!config)
        error_setg(errp, "out of memory");
    else
        ok = g->ops->save_config(g, config, errp) && wire_send_config(out, config, errp) &&
             expect(in, WIRE_CONFIG_OK, "waiting for the answer to a configuration", errp);
    perdure_stream_close(config);
    return ok;
}

bool session_may_protect(const Guest *g, Error **errp)
{
    if (g->unprotectable)
        error_setg(errp, "this machine can be moved (migrate), but not protected: %s", g->unprotectable);
    return !g->unprotectable;
}

bool session_config_fits(Guest *g, const void *config, size_t size, Error **errp)
{
    VMStream *own = perdure_stream_open_memory(CONFIG_RESERVE);
    const void *data;
    size_t own_size;
    bool ok = false;

    if (!own) {
        error_setg(errp, "out of memory");
    } else if (g->ops->save_config(g, own, errp)) {
        data = perdure_stream_memory(own, &own_size);
        ok = own_size == size && !memcmp(data, config, size);
        if (!ok)
            error_setg(errp,
                       "this side still has the machine of a protection before, and the primary's is not the "
                       "same any more: start the standby anew");
    }
    perdure_stream_close(own);
    return ok;
}

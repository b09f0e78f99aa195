/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/session.h"

#include <errno.h>

#define CONFIG_RESERVE (64 * 1024)

/* Waits for want; a refusal's text is the error. */
static bool expect(VMStream *in, enum wire_record want, const char *while_what, Error **errp)
{
    char text[WIRE_TEXT_MAX];
    uint16_t type;
    uint64_t id;

    if (!wire_next(in, &type, &id, errp))
        return false;
    if (type == WIRE_REFUSE || type == WIRE_FAIL) {
        if (wire_get_text(in, text, errp))
            error_setg(errp, "%s", text);
        return false;
    }
    if (type != want)
        wire_unexpected(in, type, while_what);
    return wire_done(in, errp);
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

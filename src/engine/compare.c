/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the backup's machine holds after a load, compared with what was sent, section by section. Sections are
 * matched by name and instance; their numbers are each process's own.
 */
#include "engine/backup.h"
#include <perdure/savevm.h>

#include <stdlib.h>
#include <string.h>

struct section {
    char name[256];
    uint32_t instance, version;
    uint8_t *body; /* malloc */
    size_t size;
};

/* The rest of the open record. */
static bool get_rest(VMStream *f, struct section *sec)
{
    size_t capacity = 0;

    while (perdure_stream_left(f) && !perdure_stream_error(f, NULL)) {
        size_t left = perdure_stream_left(f), n = left == SIZE_MAX ? 1 : left;

        if (sec->size + n > capacity) {
            uint8_t *grown;

            capacity = 2 * (sec->size + n);
            grown = realloc(sec->body, capacity);
            if (!grown)
                return false;
            sec->body = grown;
        }
        if (!perdure_stream_get_buffer(f, sec->body + sec->size, n))
            return false;
        sec->size += n;
    }
    perdure_stream_done(f);
    return !perdure_stream_error(f, NULL);
}

/* The next section of a state that was checked before; false: no more. */
static bool next_section(VMStream *f, struct section *sec)
{
    uint16_t type;
    uint64_t id;

    memset(sec, 0, sizeof(*sec));
    while (perdure_stream_next(f, &type, &id)) {
        if (type == PERDURE_RECORD_SECTION_FULL) {
            perdure_stream_get_string(f, sec->name, sizeof(sec->name));
            sec->instance = perdure_stream_get_u32(f);
            sec->version = perdure_stream_get_u32(f);
            return get_rest(f, sec);
        }
        perdure_stream_skip(f);
    }
    return false;
}

static bool find_section(const VMStream *state, const struct section *want, struct section *ret)
{
    VMStream *f = vmstream_reopen_memory(state);
    bool found = false;

    memset(ret, 0, sizeof(*ret));
    while (f && !found) {
        free(ret->body);
        if (!next_section(f, ret))
            break;
        found = !strcmp(ret->name, want->name) && ret->instance == want->instance;
    }
    perdure_stream_close(f);
    return found;
}

static bool same(Guest *g, const struct section *a, const struct section *b)
{
    if (a->version != b->version || a->size != b->size)
        return false;
    return !a->size || !memcmp(a->body, b->body, a->size) ||
           (g->ops->section_matches && g->ops->section_matches(g, a->name, a->body, b->body, a->size));
}

static bool compare_all(Guest *g, const VMStream *sent, const VMStream *loaded, Error **errp)
{
    VMStream *f = vmstream_reopen_memory(sent);
    struct section a, b;
    bool ok = f != NULL;

    while (ok && next_section(f, &a)) {
        ok = find_section(loaded, &a, &b) && same(g, &a, &b);
        if (!ok)
            error_setg(errp, "device %s.%u: after the load its state is not what was sent", a.name,
                       a.instance);
        free(a.body);
        free(b.body);
    }
    if (ok && perdure_stream_error(f, errp))
        ok = false;
    if (!f)
        error_setg(errp, "out of memory");
    perdure_stream_close(f);
    return ok;
}

bool compare_devices(Guest *g, const VMStream *sent, Error **errp)
{
    VMStream *loaded = perdure_stream_open_memory(0);
    bool ok = false;

    if (!loaded)
        error_setg(errp, "out of memory");
    else
        ok = perdure_savevm_devices(loaded, errp) && compare_all(g, sent, loaded, errp);
    perdure_stream_close(loaded);
    return ok;
}

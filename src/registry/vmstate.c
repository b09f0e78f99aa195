/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <perdure/vmstate.h>
#include "stream/vmstream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool has_field(const VMStateField *field, int version)
{
    return field->since <= version;
}

/* How many elements the object has of a field now; as many as there is room for at most. */
static size_t field_count(const VMStateField *field, const void *opaque)
{
    uint32_t n;

    if (!field->variable)
        return field->count;
    memcpy(&n, (const char *)opaque + field->count_offset, sizeof(n));
    return n;
}

static void put_int(VMStream *f, const void *at, size_t size)
{
    switch (size) {
    case 1:
        perdure_stream_put_u8(f, *(const uint8_t *)at);
        break;
    case 2:
        perdure_stream_put_u16(f, *(const uint16_t *)at);
        break;
    case 4:
        perdure_stream_put_u32(f, *(const uint32_t *)at);
        break;
    default:
        assert(size == 8);
        perdure_stream_put_u64(f, *(const uint64_t *)at);
    }
}

static void get_int(VMStream *f, void *at, size_t size)
{
    switch (size) {
    case 1:
        *(uint8_t *)at = perdure_stream_get_u8(f);
        break;
    case 2:
        *(uint16_t *)at = perdure_stream_get_u16(f);
        break;
    case 4:
        *(uint32_t *)at = perdure_stream_get_u32(f);
        break;
    default:
        assert(size == 8);
        *(uint64_t *)at = perdure_stream_get_u64(f);
    }
}

static bool save_field(VMStream *f, const VMStateField *field, void *opaque, Error **errp)
{
    char *at = (char *)opaque + field->offset;
    size_t count = field_count(field, opaque);

    assert(count <= field->count);
    if (field->type == VMSTATE_TYPE_BUFFER || (field->type == VMSTATE_TYPE_INT && field->size == 1)) {
        perdure_stream_put_buffer(f, at, count * field->size);
        return true;
    }
    for (size_t i = 0; i < count; i++, at += field->size) {
        if (field->type == VMSTATE_TYPE_INT)
            put_int(f, at, field->size);
        else if (field->type == VMSTATE_TYPE_BOOL)
            put_int(f, at, 1);
        else if (!perdure_vmstate_save(f, field->sub, at, errp))
            return false;
    }
    return true;
}

bool perdure_vmstate_save(VMStream *f, const VMStateDescription *d, void *opaque, Error **errp)
{
    if (d->pre_save && !d->pre_save(opaque, errp))
        return false;
    for (const VMStateField *field = d->fields; field->type != VMSTATE_TYPE_END; field++) {
        if (!save_field(f, field, opaque, errp))
            return false;
    }
    return true;
}

static bool load_bool(VMStream *f, bool *at, const VMStateField *field, Error **errp)
{
    uint8_t v = perdure_stream_get_u8(f);

    if (v > 1) {
        error_setg(errp, "%s is neither 0 nor 1", field->name);
        return false;
    }
    *at = v;
    return true;
}

static bool load_fields(VMStream *f, const VMStateDescription *d, void *opaque, int version, Error **errp);

static bool load_element(VMStream *f, const VMStateField *field, void *at, int version, Error **errp)
{
    switch (field->type) {
    case VMSTATE_TYPE_INT:
        get_int(f, at, field->size);
        return true;
    case VMSTATE_TYPE_BOOL:
        return load_bool(f, at, field, errp);
    default:
        if (load_fields(f, field->sub, at, version, errp))
            return true;
        error_prepend(errp, "%s: ", field->name);
        return false;
    }
}

static bool load_field(VMStream *f, const VMStateField *field, void *opaque, int version, Error **errp)
{
    char *at = (char *)opaque + field->offset;
    size_t count = field_count(field, opaque);

    if (count > field->count) {
        /* Nobody may find that number in the object, whatever becomes of it after this failure. */
        memset((char *)opaque + field->count_offset, 0, sizeof(uint32_t));
        error_setg(errp, "%s has %zu elements, at most %zu are possible", field->name, count, field->count);
        return false;
    }
    if (field->type == VMSTATE_TYPE_BUFFER) {
        perdure_stream_get_buffer(f, at, count * field->size);
        return true;
    }
    for (size_t i = 0; i < count; i++, at += field->size) {
        if (!load_element(f, field, at, version, errp))
            return false;
    }
    return true;
}

/* A struct within a struct has no version of its own: its fields are there since a version of the section. */
static bool load_fields(VMStream *f, const VMStateDescription *d, void *opaque, int version, Error **errp)
{
    for (const VMStateField *field = d->fields; field->type != VMSTATE_TYPE_END; field++) {
        if (has_field(field, version) && !load_field(f, field, opaque, version, errp))
            return false;
    }
    /* post_load decides on what was read: it must not see the zeroes of a stream that ended too early. */
    return !perdure_stream_error(f, errp) && (!d->post_load || d->post_load(opaque, version, errp));
}

bool perdure_vmstate_load(VMStream *f, const VMStateDescription *d, void *opaque, int version, Error **errp)
{
    if (version < d->minimum_version || version > d->version) {
        error_setg(errp, "%s: the stream has version %d, this build knows %d to %d", d->name, version,
                   d->minimum_version, d->version);
        return false;
    }
    return load_fields(f, d, opaque, version, errp);
}

/* --- as a component of the savevm list --- */

struct registration {
    const VMStateDescription *description;
    void *opaque;
    struct registration *next;
};

static struct registration *registrations;

static void save_state(VMStream *f, void *opaque)
{
    struct registration *r = opaque;
    Error *err = NULL;

    if (perdure_vmstate_save(f, r->description, r->opaque, &err))
        return;
    if (!err)
        error_setg(&err, "its state cannot be saved, without a reason");
    vmstream_take_error(f, err);
}

static int load_state(VMStream *f, void *opaque, int version)
{
    struct registration *r = opaque;
    Error *err = NULL;

    if (perdure_vmstate_load(f, r->description, r->opaque, version, &err))
        return 0;
    if (!err)
        error_setg(&err, "what was loaded is refused, without a reason");
    vmstream_take_error(f, err);
    return perdure_stream_error(f, NULL);
}

static const SaveVMHandlers vmstate_handlers = {.save_state = save_state, .load_state = load_state};

bool perdure_vmstate_register(const VMStateDescription *d, int instance_id, void *opaque, Error **errp)
{
    struct registration *r = malloc(sizeof(*r));
    int status;

    if (!r) {
        error_setg_errno(errp, ENOMEM, "%s", d->name);
        return false;
    }
    *r = (struct registration){d, opaque, registrations};
    status = register_savevm_live(d->name, instance_id, d->version, &vmstate_handlers, r);
    if (status < 0) {
        error_setg_errno(errp, -status, "cannot register the state of %s.%d", d->name, instance_id);
        free(r);
        return false;
    }
    registrations = r;
    return true;
}

void perdure_vmstate_unregister(const VMStateDescription *d, void *opaque)
{
    for (struct registration **at = &registrations; *at; at = &(*at)->next) {
        struct registration *r = *at;
        if (r->description == d && r->opaque == opaque) {
            *at = r->next;
            unregister_savevm(NULL, d->name, r);
            free(r);
            return;
        }
    }
}

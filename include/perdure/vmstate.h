/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMState: field tables. What the guest can see of a device, written field by field (never raw structs),
 * little-endian, each with the section version since which it is there.
 *
 *     static const VMStateField rtc_fields[] = {
 *         VMSTATE_U8(struct rtc, index, 1),
 *         VMSTATE_U8_ARRAY(struct rtc, cmos, 128, 1),
 *         VMSTATE_U64(struct rtc, offset_s, 2),       // absent in version 1: keeps its value
 *         VMSTATE_END,
 *     };
 *     static const VMStateDescription rtc_vmstate = {
 *         .name = "rtc", .version = 2, .minimum_version = 1, .fields = rtc_fields,
 *     };
 */
#ifndef PERDURE_VMSTATE_H
#define PERDURE_VMSTATE_H

#include <perdure/savevm.h>

typedef enum {
    VMSTATE_TYPE_END,
    VMSTATE_TYPE_INT,    /* elements of 1, 2, 4 or 8 bytes */
    VMSTATE_TYPE_BOOL,   /* one byte, 0 or 1; anything else is refused */
    VMSTATE_TYPE_BUFFER, /* bytes as they are */
    VMSTATE_TYPE_STRUCT, /* elements described by .sub */
} VMStateType;

typedef struct VMStateDescription VMStateDescription;

typedef struct VMStateField {
    const char *name;
    VMStateType type;
    size_t offset;
    size_t size;   /* of one element, in the struct */
    size_t count;  /* of elements; of the array where count_offset is used: its capacity */
    int since;     /* first section version that has the field */
    bool variable; /* the number of elements is the uint32_t at count_offset (an earlier field), at most count
                    */
    size_t count_offset;
    const VMStateDescription *sub;
} VMStateField;

struct VMStateDescription {
    const char *name;
    int version;
    int minimum_version; /* oldest that can be loaded */
    const VMStateField *fields;
    /* Machine stopped: brings the fields up to date. May not allocate. false, with *errp set: they cannot be
     * relied upon, and the save fails. NULL: nothing to do. */
    bool (*pre_save)(void *opaque, Error **errp);
    /* Checks what was loaded (all of it is hostile) and rebuilds what is derived. NULL: nothing to do. */
    bool (*post_load)(void *opaque, int version, Error **errp);
};

#define VMSTATE_FIELD_(s, f, t, n, v)                                                                        \
    {                                                                                                        \
        .name = #f, .type = (t), .offset = offsetof(s, f), .size = sizeof(((s *)0)->f) / (n), .count = (n),  \
        .since = (v)                                                                                         \
    }
#define VMSTATE_U8(s, f, v)           VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, 1, v)
#define VMSTATE_U16(s, f, v)          VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, 1, v)
#define VMSTATE_U32(s, f, v)          VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, 1, v)
#define VMSTATE_U64(s, f, v)          VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, 1, v)
#define VMSTATE_BOOL(s, f, v)         VMSTATE_FIELD_(s, f, VMSTATE_TYPE_BOOL, 1, v)
#define VMSTATE_U8_ARRAY(s, f, n, v)  VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, n, v)
#define VMSTATE_U16_ARRAY(s, f, n, v) VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, n, v)
#define VMSTATE_U32_ARRAY(s, f, n, v) VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, n, v)
#define VMSTATE_U64_ARRAY(s, f, n, v) VMSTATE_FIELD_(s, f, VMSTATE_TYPE_INT, n, v)
#define VMSTATE_BUFFER(s, f, v)       VMSTATE_FIELD_(s, f, VMSTATE_TYPE_BUFFER, 1, v)
#define VMSTATE_STRUCT(s, f, d, v)                                                                           \
    {                                                                                                        \
        .name = #f, .type = VMSTATE_TYPE_STRUCT, .offset = offsetof(s, f), .size = sizeof(((s *)0)->f),      \
        .count = 1, .since = (v), .sub = (d)                                                                 \
    }
#define VMSTATE_STRUCT_ARRAY(s, f, n, d, v)                                                                  \
    {                                                                                                        \
        .name = #f, .type = VMSTATE_TYPE_STRUCT, .offset = offsetof(s, f),                                   \
        .size = sizeof(((s *)0)->f) / (n), .count = (n), .since = (v), .sub = (d)                            \
    }
#define VMSTATE_STRUCT_VARRAY(s, f, n, countf, d, v)                                                         \
    {                                                                                                        \
        .name = #f, .type = VMSTATE_TYPE_STRUCT, .offset = offsetof(s, f),                                   \
        .size = sizeof(((s *)0)->f) / (n), .count = (n), .since = (v), .variable = true,                     \
        .count_offset = offsetof(s, countf), .sub = (d)                                                      \
    }
#define VMSTATE_BUFFER_VARRAY(s, f, countf, v)                                                               \
    {                                                                                                        \
        .name = #f, .type = VMSTATE_TYPE_BUFFER, .offset = offsetof(s, f), .size = 1,                        \
        .count = sizeof(((s *)0)->f), .since = (v), .variable = true, .count_offset = offsetof(s, countf)    \
    }
#define VMSTATE_END                                                                                          \
    {                                                                                                        \
        .type = VMSTATE_TYPE_END                                                                             \
    }

/* pre_save, then writes the fields of opaque into the open record. false: pre_save failed (what the stream
 * says is found at its end, as ever). */
bool perdure_vmstate_save(VMStream *f, const VMStateDescription *d, void *opaque, Error **errp);
/* Reads them, version being the section's; then post_load. */
bool perdure_vmstate_load(VMStream *f, const VMStateDescription *d, void *opaque, int version, Error **errp);
/* Registers opaque as a non-iterable component "d->name" of the savevm list; instance_id -1: the next free
 * one. */
bool perdure_vmstate_register(const VMStateDescription *d, int instance_id, void *opaque, Error **errp);
void perdure_vmstate_unregister(const VMStateDescription *d, void *opaque);

#endif

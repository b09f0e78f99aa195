/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream/vmstream_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

VMStream *vmstream_alloc(enum vmstream_kind kind, size_t capacity)
{
    VMStream *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->kind = kind;
    f->capacity = capacity;
    f->buf = capacity ? malloc(capacity) : NULL;
    if (capacity && !f->buf) {
        free(f);
        return NULL;
    }
    return f;
}

VMStream *vmstream_new_writer(Channel *ch)
{
    /* A frame begins only while a whole one fits behind it: so it never has to be moved. */
    VMStream *f = vmstream_alloc(VMSTREAM_WRITER, 2 * FRAME_MAX_SIZE);

    if (f)
        f->ch = ch;
    return f;
}

VMStream *vmstream_new_reader(Channel *ch)
{
    VMStream *f = vmstream_alloc(VMSTREAM_READER, FRAME_MAX_SIZE);

    if (f)
        f->ch = ch;
    return f;
}

VMStream *perdure_stream_open_fd(int fd, const char *mode, Error **errp)
{
    bool writer = !strcmp(mode, "w");
    VMStream *f = NULL;
    char name[40];
    Channel *ch;

    if (!writer && strcmp(mode, "r")) {
        error_setg_errno(errp, EINVAL, "a stream is opened with mode \"r\" or \"w\", not \"%s\"", mode);
        return NULL;
    }
    snprintf(name, sizeof(name), "file descriptor %d", fd);
    ch = channel_fd_borrow(fd, name);
    if (ch)
        f = writer ? vmstream_new_writer(ch) : vmstream_new_reader(ch);
    if (!f) {
        error_setg_errno(errp, ENOMEM, "cannot open a stream over %s", name);
        channel_close(ch);
        return NULL;
    }
    f->owns_channel = true;
    return f;
}

VMStream *perdure_stream_open_memory(size_t reserve)
{
    return vmstream_alloc(VMSTREAM_MEMORY, reserve);
}

VMStream *perdure_stream_open_buffer(const void *data, size_t size)
{
    VMStream *f = vmstream_alloc(VMSTREAM_BUFFER, 0);

    if (f) {
        f->data = data ?: ""; /* no arithmetic on NULL */
        f->data_size = size;
    }
    return f;
}

VMStream *vmstream_reopen_memory(const VMStream *mem)
{
    size_t size;
    const void *data = perdure_stream_memory(mem, &size);

    return perdure_stream_open_buffer(data, size);
}

const void *perdure_stream_memory(const VMStream *f, size_t *size)
{
    *size = f->kind == VMSTREAM_MEMORY ? f->frame_at : 0;
    return f->buf;
}

void perdure_stream_close(VMStream *f)
{
    if (!f)
        return;
    if (f->owns_channel)
        channel_close(f->ch);
    error_free(f->err);
    free(f->buf);
    free(f);
}

int perdure_stream_error(const VMStream *f, Error **errp)
{
    if (!f->err)
        return 0;
    if (errp)
        error_propagate(errp, error_copy(f->err));
    return -(error_get_errno(f->err) ?: EIO);
}

void perdure_stream_set_error(VMStream *f, int errnum, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (f->err)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    error_setg_errno(&f->err, -errnum, "%s", text);
}

void vmstream_take_error(VMStream *f, Error *err)
{
    error_propagate(&f->err, err);
}

uint64_t perdure_stream_bytes(const VMStream *f)
{
    return vmstream_is_writer(f) ? f->flushed + f->used : f->offset;
}

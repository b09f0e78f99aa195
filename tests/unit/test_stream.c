/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream/vmstream.h"
#include "base/crc32c.h"
#include "base/random.h"
#include "base/task.h"
#include "golden.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define CHUNK PERDURE_STREAM_CHUNK

static void expect_error(VMStream *f, int errnum, const char *text)
{
    Error *err = NULL;

    assert_int_equal(perdure_stream_error(f, &err), errnum);
    assert_int_equal(perdure_stream_error(f, NULL), errnum);
    if (!strstr(error_get_pretty(err), text))
        fail_msg("'%s' is not in '%s'", text, error_get_pretty(err));
    assert_int_equal(error_get_errno(err), -errnum);
    error_free(err);
}

/* Two records: one of each kind of number, and an empty one. */
static void put_small(VMStream *f)
{
    perdure_stream_begin(f, 0x0013, 0x1122334455667788);
    perdure_stream_put_u8(f, 0xa1);
    perdure_stream_put_u16(f, 0xb1b2);
    perdure_stream_put_u32(f, 0xc1c2c3c4);
    perdure_stream_put_u64(f, 0xd1d2d3d4d5d6d7d8);
    perdure_stream_put_string(f, "disk");
    perdure_stream_put_buffer(f, "xyz", 3);
    perdure_stream_end(f);
    perdure_stream_begin(f, 0x1f | PERDURE_RECORD_OPTIONAL, 0);
    perdure_stream_end(f);
    assert_int_equal(perdure_stream_error(f, NULL), 0);
}

/* Reads it back; stops at the first error. */
static void get_small(VMStream *f)
{
    uint16_t type = 0;
    uint64_t id = 0;
    char s[16];

    if (!perdure_stream_next(f, &type, &id))
        return;
    perdure_stream_get_u8(f);
    perdure_stream_get_u16(f);
    perdure_stream_get_u32(f);
    perdure_stream_get_u64(f);
    perdure_stream_get_string(f, s, sizeof(s));
    perdure_stream_get_buffer(f, s, 3);
    perdure_stream_done(f);
    if (perdure_stream_next(f, &type, &id))
        perdure_stream_done(f);
    if (perdure_stream_next(f, &type, &id))
        perdure_stream_set_error(f, -EBADMSG, "a third record");
}

static void test_golden(void **state)
{
    VMStream *f = perdure_stream_open_memory(0);
    const void *data;
    size_t size;

    (void)state;
    put_small(f);
    data = perdure_stream_memory(f, &size);
    assert_true(golden_matches("frames.hex", data, size));
    assert_int_equal(perdure_stream_bytes(f), size);
    perdure_stream_close(f);
    perdure_stream_close(NULL);
}

static void test_contents(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *f;
    char s[5], xyz[3];
    uint16_t type;
    uint64_t id;

    (void)state;
    put_small(w);
    f = vmstream_reopen_memory(w);
    assert_true(perdure_stream_next(f, &type, &id));
    assert_int_equal(type, 0x13);
    assert_true(id == 0x1122334455667788);
    assert_int_equal(perdure_stream_left(f), 24);
    assert_int_equal(perdure_stream_get_u8(f), 0xa1);
    assert_int_equal(perdure_stream_get_u16(f), 0xb1b2);
    assert_int_equal(perdure_stream_get_u32(f), 0xc1c2c3c4);
    assert_true(perdure_stream_get_u64(f) == 0xd1d2d3d4d5d6d7d8);
    assert_true(perdure_stream_get_string(f, s, sizeof(s)));
    assert_string_equal(s, "disk");
    assert_int_equal(perdure_stream_left(f), 3);
    assert_true(perdure_stream_get_buffer(f, xyz, 3));
    assert_memory_equal(xyz, "xyz", 3);
    perdure_stream_done(f);
    assert_true(perdure_stream_next(f, &type, &id));
    assert_int_equal(type, 0x801f);
    assert_int_equal(perdure_stream_left(f), 0);
    perdure_stream_done(f);
    assert_false(perdure_stream_next(f, &type, &id));
    assert_int_equal(perdure_stream_error(f, NULL), 0);
    assert_int_equal(perdure_stream_bytes(f), perdure_stream_bytes(w));
    perdure_stream_close(f);
    perdure_stream_close(w);
}

/* The octets in a block of their own, so that the sanitizer sees every step over their end. */
static int error_of(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    VMStream *f;
    int r;

    memcpy(copy, data, size);
    f = perdure_stream_open_buffer(copy, size);
    get_small(f);
    r = perdure_stream_error(f, NULL);
    perdure_stream_close(f);
    free(copy);
    return r;
}

static void test_every_cut_and_flip(void **state)
{
    VMStream *w = perdure_stream_open_memory(0);
    size_t size, first = 24 + 24;
    uint8_t *data;

    (void)state;
    put_small(w);
    data = (uint8_t *)perdure_stream_memory(w, &size);
    assert_int_equal(error_of(data, size), 0);
    for (size_t n = 0; n < size;
         n++) /* whole records only are no error: whoever reads them sees that END is missing */
        assert_int_equal(error_of(data, n), n == 0 || n == first ? 0 : -EBADMSG);
    for (size_t bit = 0; bit < size * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(error_of(data, size), -EBADMSG);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    perdure_stream_close(w);
}

static uint8_t *random_data(size_t n)
{
    uint8_t *data = malloc(n);

    random_bytes(data, n);
    return data;
}

/* One record of size bytes, put in pieces of piece bytes. */
static void put_big(VMStream *f, const uint8_t *data, size_t size, size_t piece)
{
    perdure_stream_begin(f, 0x20, 7);
    for (size_t at = 0; at < size; at += piece)
        perdure_stream_put_buffer(f, data + at, size - at < piece ? size - at : piece);
    perdure_stream_end(f);
}

static void expect_big(VMStream *f, const uint8_t *data, size_t size, size_t piece)
{
    uint8_t *got = malloc(size ? size : 1);
    uint16_t type;
    uint64_t id;

    assert_true(perdure_stream_next(f, &type, &id));
    assert_int_equal(type, 0x20);
    assert_int_equal(id, 7);
    for (size_t at = 0; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;

        assert_true(perdure_stream_left(f) >= n);
        assert_true(perdure_stream_get_buffer(f, got + at, n));
    }
    assert_int_equal(perdure_stream_left(f), 0);
    perdure_stream_done(f);
    assert_int_equal(perdure_stream_error(f, NULL), 0);
    assert_memory_equal(got, data, size);
    free(got);
}

struct sender {
    Channel *ch;
    const uint8_t *data;
    const size_t *sizes;
    size_t count, piece;
    VMStream *memory; /* the same, for comparison */
};

static void send_records(void *arg)
{
    struct sender *s = arg;
    VMStream *f = vmstream_new_writer(s->ch);

    for (size_t i = 0; i < s->count; i++) {
        put_big(f, s->data, s->sizes[i], s->piece);
        put_big(s->memory, s->data, s->sizes[i], s->piece);
    }
    perdure_stream_append(f, s->memory);
    if (!perdure_stream_flush(f, NULL))
        abort();
    perdure_stream_close(f);
    channel_shutdown(s->ch);
}

/* Sizes around the edges of frames, over a socket and in memory, in several sizes of pieces: always the same
 * octets. */
static void test_big_records(void **state)
{
    static const size_t sizes[] = {0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5, 5 * CHUNK};
    static const size_t pieces[] = {4096, 5 * CHUNK, 100003, CHUNK};
    const size_t count = sizeof(sizes) / sizeof(sizes[0]);
    uint8_t *data = random_data(5 * CHUNK);

    (void)state;
    for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
        struct sender s = {.data = data, .sizes = sizes, .count = count, .piece = pieces[p]};
        int fds[2];
        VMStream *f;
        Channel *in;
        uint16_t type;
        uint64_t id;
        Task *t;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        s.ch = channel_fd_new(fds[0], "unix:");
        s.memory = perdure_stream_open_memory(0);
        in = channel_fd_new(fds[1], "unix:");
        f = vmstream_new_reader(in);
        t = task_start("sender", send_records, &s, NULL);
        for (size_t i = 0; i < 2 * count; i++)
            expect_big(f, data, sizes[i % count], pieces[p]);
        assert_false(perdure_stream_next(f, &type, &id));
        assert_int_equal(perdure_stream_error(f, NULL), 0);
        task_join(t);
        assert_int_equal(perdure_stream_bytes(f), 2 * perdure_stream_bytes(s.memory));
        perdure_stream_close(f);
        f = vmstream_reopen_memory(s.memory);
        for (size_t i = 0; i < count; i++)
            expect_big(f, data, sizes[i], 4097);
        perdure_stream_close(f);
        perdure_stream_close(s.memory);
        channel_close(in);
        channel_close(s.ch);
    }
    free(data);
}

static void test_file(void **state)
{
    FILE *file = tmpfile();
    Error *err = NULL;
    VMStream *f;
    uint16_t type;
    uint64_t id;

    (void)state;
    assert_null(perdure_stream_open_fd(fileno(file), "rw", &err));
    assert_int_equal(error_get_errno(err), EINVAL);
    error_free(err);
    f = perdure_stream_open_fd(fileno(file), "w", NULL);
    put_small(f);
    assert_true(perdure_stream_flush(f, NULL));
    assert_int_equal(perdure_stream_bytes(f), 72);
    perdure_stream_close(f);
    assert_int_equal(lseek(fileno(file), 0, SEEK_END), 72);
    lseek(fileno(file), 0, SEEK_SET);
    f = perdure_stream_open_fd(fileno(file), "r", NULL);
    assert_true(perdure_stream_next(f, &type, &id));
    perdure_stream_skip(f);
    assert_int_equal(lseek(fileno(file), 0, SEEK_CUR), 48); /* not a byte ahead */
    assert_true(perdure_stream_next(f, &type, &id));
    perdure_stream_done(f);
    perdure_stream_close(f);
    assert_int_equal(ftruncate(fileno(file), 71), 0);
    lseek(fileno(file), 48, SEEK_SET);
    f = perdure_stream_open_fd(fileno(file), "r", NULL);
    assert_false(perdure_stream_next(f, &type, &id));
    expect_error(f, -EBADMSG, "the stream ends inside of a frame header at offset 0");
    perdure_stream_close(f);
    fclose(file);
}

static VMStream *reader_of(const void *data, size_t size)
{
    VMStream *f = perdure_stream_open_buffer(data, size);
    uint16_t type;
    uint64_t id;

    assert_true(perdure_stream_next(f, &type, &id));
    return f;
}

static void test_hostile_continuations(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *f;
    size_t size, frame = 24 + CHUNK;
    uint8_t *data = calloc(1, 2 * CHUNK), *bytes;
    char byte;

    (void)state;
    put_big(w, data, CHUNK + 10, 4096);
    perdure_stream_begin(w, 0x20, 8);
    perdure_stream_end(w);
    bytes = (uint8_t *)perdure_stream_memory(w, &size);

    f = reader_of(bytes, size); /* bytes left over */
    assert_int_equal(perdure_stream_left(f), SIZE_MAX);
    perdure_stream_done(f);
    expect_error(f, -EBADMSG, "record type 0x20 id 7 at offset 0: bytes are left over");
    perdure_stream_close(f);

    f = reader_of(bytes, frame); /* ends where it goes on */
    perdure_stream_skip(f);
    expect_error(f, -EBADMSG, "the stream ends inside of a record at offset 262168");
    perdure_stream_close(f);

    memmove(bytes + frame, bytes + frame + 34, 24); /* goes on as a record of another id */
    f = reader_of(bytes, frame + 24);
    assert_true(perdure_stream_get_buffer(f, data, CHUNK));
    assert_int_equal(perdure_stream_left(f), SIZE_MAX);
    assert_false(perdure_stream_get_buffer(f, &byte, 1));
    expect_error(f, -EBADMSG, "id 8 at offset 262168: it does not go on with the record before");
    perdure_stream_close(f);
    perdure_stream_close(w);
    free(data);
}

/* Right checksums over wrong headers. */
static void expect_bad_header(uint16_t flags, uint32_t length, const char *text)
{
    uint8_t bytes[24] = {0};
    struct frame {
        uint16_t type, flags;
        uint32_t length;
    } fr = {.type = 1, .flags = flags, .length = length};
    uint32_t crc;
    VMStream *f;
    uint16_t type;
    uint64_t id;

    memcpy(bytes, &fr, sizeof(fr));
    crc = crc32c(0, bytes, 20);
    memcpy(bytes + 20, &crc, 4);
    f = perdure_stream_open_buffer(bytes, sizeof(bytes));
    assert_false(perdure_stream_next(f, &type, &id));
    expect_error(f, -EBADMSG, text);
    perdure_stream_close(f);
}

static void test_hostile_headers(void **state)
{
    (void)state;
    expect_bad_header(0, CHUNK + 1, "too long");
    expect_bad_header(0, UINT32_MAX, "too long");
    expect_bad_header(2, 0, "unknown flags");
    expect_bad_header(1, 10, "not full");
    expect_bad_header(0, CHUNK, "ends inside of a frame");
}

static void test_getting_too_much(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *f;
    char buf[8] = "aaaaaaa";

    (void)state;
    perdure_stream_begin(w, 1, 2);
    perdure_stream_put_u32(w, 5);
    perdure_stream_end(w);
    f = vmstream_reopen_memory(w);
    assert_true(perdure_stream_next(f, &(uint16_t){0}, &(uint64_t){0}));
    assert_false(perdure_stream_get_buffer(f, buf, 8));
    assert_memory_equal(buf, "\0\0\0\0\0\0\0", 8);
    expect_error(f, -EBADMSG, "record type 0x1 id 2 at offset 0: it ends too early");
    assert_int_equal(perdure_stream_get_u32(f), 0);
    assert_int_equal(perdure_stream_left(f), 0);
    perdure_stream_set_error(f, -EIO, "a later one");
    expect_error(f, -EBADMSG, "too early");
    perdure_stream_close(f);
    perdure_stream_close(w);
}

static void expect_bad_string(const char *bytes, uint16_t length, size_t there, const char *text)
{
    VMStream *w = perdure_stream_open_memory(0), *f;
    char buf[5] = "....";

    perdure_stream_begin(w, 1, 2);
    perdure_stream_put_u16(w, length);
    perdure_stream_put_buffer(w, bytes, there);
    perdure_stream_end(w);
    f = vmstream_reopen_memory(w);
    assert_true(perdure_stream_next(f, &(uint16_t){0}, &(uint64_t){0}));
    assert_false(perdure_stream_get_string(f, buf, sizeof(buf)));
    assert_string_equal(buf, "");
    expect_error(f, -EBADMSG, text);
    perdure_stream_close(f);
    perdure_stream_close(w);
}

static void test_strings(void **state)
{
    VMStream *w = perdure_stream_open_memory(0);
    char *long_one = malloc(70000);

    (void)state;
    expect_bad_string("abcde", 5, 5, "too long");
    expect_bad_string("abc", 4, 3, "too early");
    expect_bad_string("a\0c", 3, 3, "NUL inside");
    memset(long_one, 'x', 69999);
    long_one[69999] = 0;
    perdure_stream_begin(w, 1, 2);
    perdure_stream_put_string(w, long_one);
    expect_error(w, -EINVAL, "too long for a stream");
    free(long_one);
    perdure_stream_close(w);
}

/* A record that is taken back leaves no trace, unless a frame of it is out. */
static void test_cancel(void **state)
{
    VMStream *w = perdure_stream_open_memory(0);
    char *big = calloc(1, PERDURE_STREAM_CHUNK + 1);
    uint64_t before;
    size_t size;

    (void)state;
    put_small(w);
    before = perdure_stream_bytes(w);
    perdure_stream_begin(w, 7, 7);
    perdure_stream_put_buffer(w, big, PERDURE_STREAM_CHUNK);
    vmstream_cancel(w);
    assert_int_equal(perdure_stream_error(w, NULL), 0);
    assert_int_equal(perdure_stream_bytes(w), before);
    perdure_stream_memory(w, &size);
    assert_int_equal(size, before);
    perdure_stream_begin(w, 7, 7);
    perdure_stream_put_buffer(w, big, PERDURE_STREAM_CHUNK + 1);
    vmstream_cancel(w);
    expect_error(w, -EINVAL, "too much of the record");
    perdure_stream_rewind(w);
    vmstream_cancel(w);
    expect_error(w, -EINVAL, "nothing is written outside of a record");
    free(big);
    perdure_stream_close(w);
}

static void test_wrong_order(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *f;
    uint16_t type;
    uint64_t id;

    (void)state;
    perdure_stream_put_u8(w, 1);
    expect_error(w, -EINVAL, "nothing is written outside of a record");
    perdure_stream_rewind(w);
    perdure_stream_begin(w, 1, 1);
    perdure_stream_begin(w, 1, 1);
    expect_error(w, -EINVAL, "the record before is still open");
    perdure_stream_rewind(w);
    assert_false(perdure_stream_next(w, &type, &id));
    expect_error(w, -EINVAL, "this stream is for writing");
    perdure_stream_rewind(w);
    put_small(w);
    f = vmstream_reopen_memory(w);
    perdure_stream_get_u8(f);
    expect_error(f, -EINVAL, "nothing is read outside of a record");
    perdure_stream_close(f);
    f = vmstream_reopen_memory(w);
    assert_true(perdure_stream_next(f, &type, &id));
    assert_false(perdure_stream_next(f, &type, &id));
    expect_error(f, -EINVAL, "the record before is still open");
    perdure_stream_close(f);
    f = vmstream_reopen_memory(w);
    perdure_stream_begin(f, 1, 1);
    expect_error(f, -EINVAL, "this stream is for reading");
    perdure_stream_close(f);
    perdure_stream_begin(w, 1, 1); /* an open record is no whole frame yet */
    f = vmstream_reopen_memory(w);
    get_small(f);
    assert_int_equal(perdure_stream_error(f, NULL), 0);
    perdure_stream_append(f, w);
    assert_int_equal(perdure_stream_error(f, NULL), -EINVAL);
    perdure_stream_close(f);
    perdure_stream_close(w);
}

static void test_copy_record(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *out = perdure_stream_open_memory(0), *f, *g;
    uint8_t *data = random_data(2 * CHUNK + 5);
    size_t size, copied = 2 * CHUNK + 5 + 3 * 24;
    const uint8_t *bytes;
    uint16_t type;
    uint64_t id;

    (void)state;
    put_big(w, data, 2 * CHUNK + 5, CHUNK);
    put_small(w);
    f = vmstream_reopen_memory(w);
    assert_true(perdure_stream_next(f, &type, &id));
    vmstream_copy_record(f, out, copied);
    assert_int_equal(perdure_stream_error(f, NULL), 0);
    bytes = perdure_stream_memory(out, &size);
    assert_int_equal(size, copied);
    assert_memory_equal(bytes, perdure_stream_memory(w, &size), copied);
    g = vmstream_reopen_memory(out);
    expect_big(g, data, 2 * CHUNK + 5, 1000);
    perdure_stream_close(g);
    assert_true(perdure_stream_next(f, &type, &id)); /* and on with what follows */
    vmstream_copy_record(f, out, copied + 47);
    expect_error(f, -EMSGSIZE, "is more than fits into");
    perdure_stream_close(f);

    f = vmstream_reopen_memory(w); /* a limit inside of a record leaves nothing of it */
    perdure_stream_rewind(out);
    assert_true(perdure_stream_next(f, &type, &id));
    vmstream_copy_record(f, out, copied - 1);
    expect_error(f, -EMSGSIZE, "is more than fits into");
    perdure_stream_memory(out, &size);
    assert_int_equal(size, 0);
    assert_int_equal(perdure_stream_error(out, NULL), 0);
    perdure_stream_close(f);
    perdure_stream_close(out);
    perdure_stream_close(w);
    free(data);
}

static void test_peer_is_gone(void **state)
{
    VMStream *w = perdure_stream_open_memory(0), *f, *g;
    const uint8_t *bytes;
    Error *err = NULL;
    Channel *ch[2];
    uint16_t type;
    uint64_t id;
    size_t size;
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    for (int i = 0; i < 2; i++)
        ch[i] = channel_fd_new(fds[i], "unix:peer");
    put_small(w);
    bytes = perdure_stream_memory(w, &size);
    assert_true(channel_write(ch[0], bytes, size - 1, NULL));
    channel_close(ch[0]);
    f = vmstream_new_reader(ch[1]);
    assert_true(perdure_stream_next(f, &type, &id));
    perdure_stream_skip(f);
    assert_false(perdure_stream_next(f, &type, &id));
    expect_error(f, -ECONNRESET, "unix:peer: the stream ends inside of a frame header at offset 48");
    g = vmstream_new_writer(ch[1]);
    put_small(g);
    assert_false(perdure_stream_flush(g, &err));
    assert_int_equal(error_get_errno(err), EPIPE);
    error_free(err);
    expect_error(g, -EPIPE, "cannot write to unix:peer");
    perdure_stream_put_u8(g, 1);
    perdure_stream_close(g);
    perdure_stream_close(f);
    perdure_stream_close(w);
    channel_close(ch[1]);
}

/* A look does not wait, and takes nothing away. */
static void test_has_begun(void **state)
{
    uint16_t type;
    uint64_t id;
    Channel *ch[2];
    VMStream *w, *r;

    (void)state;
    assert_true(channel_pair_new(ch, NULL));
    w = vmstream_new_writer(ch[0]);
    r = vmstream_new_reader(ch[1]);
    for (uint64_t i = 1; i < 3; i++) {
        assert_false(vmstream_has_begun(r));
        perdure_stream_begin(w, 7, i);
        perdure_stream_put_u64(w, 42 + i);
        perdure_stream_end(w);
        assert_true(perdure_stream_flush(w, NULL));
        assert_true(vmstream_has_begun(r) && vmstream_has_begun(r));
        assert_true(perdure_stream_next(r, &type, &id));
        assert_int_equal(id, i);
        assert_int_equal(perdure_stream_get_u64(r), 42 + i);
        perdure_stream_done(r);
    }
    channel_close(ch[0]);
    assert_true(vmstream_has_begun(r)); /* the end */
    assert_false(perdure_stream_next(r, &type, &id));
    perdure_stream_close(w);
    perdure_stream_close(r);
    channel_close(ch[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_every_cut_and_flip),
        cmocka_unit_test(test_big_records),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_hostile_continuations),
        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_getting_too_much),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_wrong_order),
        cmocka_unit_test(test_copy_record),
        cmocka_unit_test(test_peer_is_gone),
        cmocka_unit_test(test_has_begun),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

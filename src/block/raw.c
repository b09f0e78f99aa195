/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/raw_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image_lock.h"

static uint8_t zeroes[256 << 10];

/* --- a request as system calls --- */

static enum raw_zero zero_way(struct raw *raw, enum raw_zero way)
{
    while (way < RAW_ZERO_WRITE && __atomic_load_n(&raw->cannot[way], __ATOMIC_RELAXED))
        way++;
    return way;
}

static void next_zero_step(const struct block_request *r, struct raw_step *s)
{
    s->call = RAW_FALLOCATE;
    s->mode =
        FALLOC_FL_KEEP_SIZE | (r->stage == RAW_ZERO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    if (r->stage != RAW_ZERO_WRITE)
        return;
    s->call = RAW_WRITE;
    s->data = zeroes;
    if (s->size > sizeof(zeroes))
        s->size = sizeof(zeroes);
}

void raw_next_step(struct raw *raw, const struct block_request *r, struct raw_step *ret_step)
{
    (void)raw;
    *ret_step = (struct raw_step){.offset = r->offset + r->progress, .size = r->size - r->progress};
    switch (r->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        ret_step->call = r->op == BLOCK_READ ? RAW_READ : RAW_WRITE;
        ret_step->data = (uint8_t *)r->data + r->progress;
        break;
    case BLOCK_ZERO:
        next_zero_step(r, ret_step);
        break;
    case BLOCK_FLUSH:
        ret_step->call = RAW_SYNC;
        break;
    }
}

/* The file system cannot make zeroes in this way (or a device not of this alignment): in the next one then.
 */
static bool try_other_way(struct raw *raw, struct block_request *r, int error)
{
    if (r->op != BLOCK_ZERO || r->stage == RAW_ZERO_WRITE || (error != EOPNOTSUPP && error != EINVAL))
        return false;
    if (error == EOPNOTSUPP)
        __atomic_store_n(&raw->cannot[r->stage], true, __ATOMIC_RELAXED);
    r->stage = error == EINVAL ? RAW_ZERO_WRITE : zero_way(raw, r->stage + 1);
    return true;
}

bool raw_step_done(struct raw *raw, struct block_request *r, int64_t result, int *ret_error)
{
    *ret_error = 0;
    if (result < 0) {
        if (result == -EINTR || result == -EAGAIN || try_other_way(raw, r, -result))
            return false;
        *ret_error = -result;
    }
    if (r->op == BLOCK_FLUSH)
        __atomic_store_n(&raw->unsynced, *ret_error, __ATOMIC_RELAXED);
    if (*ret_error)
        return true;
    if (r->op == BLOCK_FLUSH || (r->op == BLOCK_ZERO && r->stage != RAW_ZERO_WRITE))
        return true;
    r->progress += result;
    if (result == 0) /* the file became shorter */
        *ret_error = EIO;
    return result == 0 || r->progress == r->size;
}

/* --- on the thread of whoever waits --- */

static int64_t make_call(int fd, const struct raw_step *s)
{
    int64_t n = -1;

    switch (s->call) {
    case RAW_READ:
        n = pread(fd, s->data, s->size, s->offset);
        break;
    case RAW_WRITE:
        n = pwrite(fd, s->data, s->size, s->offset);
        break;
    case RAW_FALLOCATE:
        n = fallocate(fd, s->mode, s->offset, s->size);
        break;
    case RAW_SYNC:
        n = fdatasync(fd);
        break;
    }
    return n < 0 ? -errno : n;
}

int raw_carry_out(struct raw *raw, struct block_request *r)
{
    struct raw_step step;
    int error;

    do {
        raw_next_step(raw, r, &step);
    } while (!raw_step_done(raw, r, make_call(raw->fd, &step), &error));
    return error;
}

/* --- the node --- */

static struct raw *from_block(Block *b)
{
    return (struct raw *)b;
}

/* false: there is nothing to do, and that is *ret_error. */
static bool begin(struct raw *raw, struct block_request *r, int *ret_error)
{
    *ret_error = raw->hold == BLOCK_RAW_HELD ? 0 : EBUSY;
    if (r->op == BLOCK_ZERO)
        r->stage = zero_way(raw, r->unmap ? RAW_ZERO_PUNCH : RAW_ZERO_RANGE);
    if (r->op == BLOCK_FLUSH && !*ret_error)
        *ret_error = __atomic_exchange_n(&raw->owed, 0, __ATOMIC_RELAXED);
    return !*ret_error && (r->op != BLOCK_FLUSH || !raw->block.readonly);
}

static void raw_submit(Block *b, struct block_request *r)
{
    struct raw *raw = from_block(b);
    int error;

    if (begin(raw, r, &error))
        raw->engine->submit(raw, r);
    else
        block_complete(r, error);
}

static int carry_out(Block *b, struct block_request *r)
{
    struct raw *raw = from_block(b);
    int error;

    return begin(raw, r, &error) ? raw_carry_out(raw, r) : error;
}

static void raw_drain(Block *b)
{
    from_block(b)->engine->drain(from_block(b));
}

static void raw_close(Block *b)
{
    struct raw *raw = from_block(b);

    if (raw->engine_state)
        raw->engine->close(raw);
    if (raw->fd >= 0)
        close(raw->fd);
    free(raw->path);
    free(raw);
}

static const struct block_ops raw_ops = {
    .name = "raw", .submit = raw_submit, .carry_out = carry_out, .drain = raw_drain, .close = raw_close};

static bool open_image(struct raw *raw, Error **errp)
{
    const char *id = raw->block.id;
    struct stat st;
    off_t end;

    raw->fd = open(raw->path, (raw->block.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (raw->fd < 0 || fstat(raw->fd, &st) < 0) {
        error_setg_errno(errp, errno, "disk %s: cannot open image %s%s", id, raw->path,
                         errno == EACCES || errno == EROFS
                             ? " for writing (readonly=on needs no permission to write)"
                             : "");
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_setg(errp, "disk %s: %s is neither a file nor a block device", id, raw->path);
        return false;
    }
    if (raw->hold == BLOCK_RAW_HELD && !image_lock(raw->fd, !raw->block.readonly, id, raw->path, errp))
        return false;
    end = lseek(raw->fd, 0, SEEK_END);
    if (end < 0) {
        error_setg_errno(errp, errno, "disk %s: cannot find the size of image %s", id, raw->path);
        return false;
    }
    raw->block.size = end;
    return true;
}

static bool use_engine(struct raw *raw, const struct raw_engine *engine, Error **errp)
{
    raw->engine = engine;
    return engine->open(raw, errp);
}

static bool open_engine(struct raw *raw, enum block_raw_engine choice, Error **errp)
{
    const char *wish = getenv("PERDURE_DISK_ENGINE");

    if (choice == BLOCK_RAW_AUTO && wish && strcmp(wish, "threads") == 0)
        choice = BLOCK_RAW_THREADS;
    if (choice == BLOCK_RAW_AUTO && wish && strcmp(wish, "uring") == 0)
        choice = BLOCK_RAW_URING;
    if (choice == BLOCK_RAW_URING)
        return use_engine(raw, &raw_uring, errp);
    return (choice == BLOCK_RAW_AUTO && use_engine(raw, &raw_uring, NULL)) ||
           use_engine(raw, &raw_threads, errp);
}

Block *block_raw_open(const struct block_raw_options *o, Error **errp)
{
    struct raw *raw = calloc(1, sizeof(*raw));
    char *path = strdup(o->path);

    if (!raw || !path) {
        error_setg(errp, "disk %s: out of memory", o->id);
        free(raw);
        free(path);
        return NULL;
    }
    raw->block = (Block){.ops = &raw_ops, .readonly = o->readonly};
    strncpy(raw->block.id, o->id, sizeof(raw->block.id) - 1);
    raw->fd = -1;
    raw->hold = o->elsewhere ? BLOCK_RAW_LEFT : BLOCK_RAW_HELD;
    raw->path = path;
    raw->loop = o->loop;
    if (open_image(raw, errp) && open_engine(raw, o->engine, errp))
        return &raw->block;
    raw_close(&raw->block);
    return NULL;
}

const char *block_raw_path(const Block *b)
{
    return b->ops == &raw_ops ? ((const struct raw *)b)->path : NULL;
}

const char *block_raw_engine_name(const Block *b)
{
    return b->ops == &raw_ops ? ((const struct raw *)b)->engine->name : NULL;
}

/* --- an image that two hosts see --- */

/* The kernel tells a failure once: one that was told to us, or to a flush of the guest that it may not have heard of yet, is
 * not over because the next call succeeds. */
static int bring_to_medium(struct raw *raw)
{
    int error = __atomic_load_n(&raw->owed, __ATOMIC_RELAXED);

    if (!error)
        error = __atomic_load_n(&raw->unsynced, __ATOMIC_RELAXED);
    return error ? error : fdatasync(raw->fd) < 0 ? errno : 0;
}

bool block_raw_settle(Block *b, Error **errp)
{
    struct raw *raw = from_block(b);
    int error = bring_to_medium(raw);

    if (!error)
        return true;
    __atomic_store_n(&raw->owed, error, __ATOMIC_RELAXED);
    error_setg_errno(errp, error, "disk %s: cannot bring to the medium what was written to image %s", b->id,
                     raw->path);
    return false;
}

/* When a file was written last; of a device nobody knows. */
static struct timespec written_at(const struct raw *raw)
{
    struct stat st;

    return !fstat(raw->fd, &st) && S_ISREG(st.st_mode) ? st.st_mtim : (struct timespec){0};
}

static bool offer(struct raw *raw, Error **errp)
{
    assert(raw->hold != BLOCK_RAW_LEFT);
    if (raw->hold == BLOCK_RAW_OFFERED)
        return true;
    if (!block_raw_settle(&raw->block, errp) || !image_lock_offer(raw->fd, raw->block.id, raw->path, errp))
        return false;
    raw->offered = written_at(raw);
    return true;
}

/* Memory that stood still meanwhile does not fit what another host wrote. */
static bool is_as_offered(struct raw *raw, Error **errp)
{
    struct timespec now = written_at(raw);

    if (now.tv_sec == raw->offered.tv_sec && now.tv_nsec == raw->offered.tv_nsec)
        return true;
    error_setg(errp,
               "disk %s: image %s was written to since it was handed over, so the guest ran elsewhere: quit "
               "this process, and start the guest from its disks",
               raw->block.id, raw->path);
    return false;
}

/* The other host has changed it: what this one's memory has of it is old. (Network file systems forget it by themselves
 * when a file is locked; a block device knows of no other host.) */
static bool accept_offer(struct raw *raw, Error **errp)
{
    bool mine = raw->hold == BLOCK_RAW_OFFERED;

    if (raw->hold == BLOCK_RAW_HELD)
        return true;
    if (!image_lock_accept(raw->fd, mine, raw->block.id, raw->path, errp))
        return false;
    if (mine && !is_as_offered(raw, errp)) {
        image_lock_offer(raw->fd, raw->block.id, raw->path, NULL);
        return false;
    }
    if (!mine)
        posix_fadvise(raw->fd, 0, 0, POSIX_FADV_DONTNEED);
    return true;
}

bool block_raw_hold(Block *b, enum block_raw_hold how, Error **errp)
{
    struct raw *raw = from_block(b);

    if (how == BLOCK_RAW_OFFERED && !offer(raw, errp))
        return false;
    if (how == BLOCK_RAW_HELD && !accept_offer(raw, errp))
        return false;
    raw->hold = how;
    if (how == BLOCK_RAW_LEFT)
        image_lock_leave(raw->fd);
    return true;
}

bool block_raw_check_elsewhere(const Block *b, Error **errp)
{
    const struct raw *raw = (const struct raw *)b;
    struct stat st;

    if (!fstat(raw->fd, &st) && (S_ISBLK(st.st_mode) || image_lock_is_written(raw->fd)))
        return true;
    error_setg(
        errp,
        "disk %s: it is shared (shared=on), but as this host sees it nobody writes to %s: it is another "
        "file than over there, or lies where one host does not see the other's locks",
        b->id, raw->path);
    return false;
}

/* --- a new image --- */

static int write_zeroes(int fd, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        ssize_t n = pwrite(fd, zeroes, size - at < sizeof(zeroes) ? size - at : sizeof(zeroes), at);

        if (n < 0 && errno != EINTR)
            return errno;
        at += n > 0 ? n : 0;
    }
    return 0;
}

static int allocate(int fd, uint64_t size)
{
    int error = !size || fallocate(fd, 0, 0, size) == 0 ? 0 : errno;

    if (error == EOPNOTSUPP)
        error = write_zeroes(fd, size);
    if (!error && fsync(fd) < 0)
        error = errno;
    return error;
}

/* The name of path is durable. */
static int sync_folder(const char *path)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int error = fd < 0 || fsync(fd) < 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    free(copy);
    return error;
}

bool block_raw_create(const char *path, uint64_t size, Error **errp)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int error;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create %s", path);
        return false;
    }
    error = size > INT64_MAX ? EFBIG : allocate(fd, size);
    close(fd);
    if (!error)
        error = sync_folder(path);
    if (!error)
        return true;
    unlink(path);
    error_setg_errno(errp, error, "cannot create %s of %llu bytes", path, (unsigned long long)size);
    return false;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: one or more request queues on a disk's chain.
 *
 * A request is copied out of guest RAM when it is popped, carried out by the chain on the copy, and completed
 * on the loop, where data read goes to guest RAM in the same section as the used index: a pause never sees
 * half of it, and a guest that changes a page meanwhile changes nothing.
 *
 * Requests are not drained for a pause. The heads in flight of each queue are part of the state; the first
 * `issued` of them are with the chain, the rest (all of them, after a takeover) are issued before anything
 * new is popped. The chain may carry them out in any order. What it still works on when the guest resets the
 * device could land upon what the next driver writes: so nothing is issued until all that is over.
 */
#include "device/devices.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "base/task.h"
#include "device/buffer_pool.h"
#include "device/virtio_pci.h"

#define SECTOR_SIZE 512u

/* Largest request of a driver that keeps to SEG_MAX and SIZE_MAX, and how much may be copied at a time. */
#define SEGMENTS_MAX     126u
#define SEGMENT_SIZE_MAX 65536u
#define REQUEST_SIZE_MAX (SEGMENTS_MAX * (size_t)SEGMENT_SIZE_MAX)
#define COPIES_SIZE_MAX  (2 * REQUEST_SIZE_MAX)
/* Discard and write-zeroes: ranges of a request, and their size. */
#define RANGES_MAX        16u
#define RANGE_SECTORS_MAX (1u << 21)
#define RANGE_ALIGNMENT   8u /* file systems give back 4 KiB and more */

#define POOL_LIMIT (8u << 20)

#define BATCH 128

#define FEATURES                                                                                             \
    (1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |          \
     1ull << VIRTIO_BLK_F_FLUSH)
#define WRITABLE_FEATURES (1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES)

struct virtio_blk {
    Device device;
    struct virtio_pci transport;
    Block *top;
    uint64_t sectors; /* saved: both sides must have as many */
    uint32_t queues;  /* saved, likewise */

    /* Not saved; loop lock held. */
    uint64_t life;                      /* counts resets */
    uint32_t stale;                     /* requests of former lives that the chain still has */
    uint32_t issued[VIRTIO_QUEUES_MAX]; /* the first so many heads in flight are with the chain */
    size_t copies_size;                 /* bytes of all requests with the chain */
    bool starved;                       /* a queue was left alone because of one of the two above */
    int told;                           /* the last error that was logged */
    struct vq_chain scratch;
    struct buffer_pool pool;

    /* What the chain is done with, on its way to the loop. */
    struct wake wake;
    struct loop_deferred deferred;
    struct task_mutex lock; /* a leaf; protects what follows */
    struct block_request *done, **done_end;
};

/* A request with the chain. */
struct copy {
    struct block_request request;
    struct virtio_blk *blk;
    uint64_t life;
    unsigned queue;
    unsigned range, ranges; /* discard, write-zeroes: under way, of how many in data */
    bool write_through;     /* a flush follows */
    size_t size;            /* of data */
    struct vq_chain chain;
    uint8_t data[] __attribute__((aligned(4096)));
};

static struct virtio_blk *from_virtio(struct virtio_device *v)
{
    return (struct virtio_blk *)((char *)v - offsetof(struct virtio_blk, transport.virtio));
}

static struct virtqueue *get_queue(struct virtio_blk *b, unsigned i)
{
    return &b->transport.virtio.queues[i];
}

/* The status is the last byte that the device may write; data, where there is some, lies before it. */
static void complete(struct virtio_blk *b, unsigned queue, const struct vq_chain *c, const void *data,
                     size_t size, uint8_t status)
{
    struct virtqueue *q = get_queue(b, queue);
    size_t written = vq_chain_write(q, c, 0, data, size);

    written += vq_chain_write(q, c, c->in_bytes - 1, &status, 1);
    virtqueue_push(q, c->head, written);
}

/* --- to the chain --- */

/* Any thread: what the chain completes while the loop handles something of ours is seen after that, without
 * the descriptor. */
static void request_done(struct block_request *r)
{
    struct virtio_blk *b = ((struct copy *)r)->blk;

    r->next = NULL;
    task_lock(&b->lock);
    *b->done_end = r;
    b->done_end = &r->next;
    task_unlock(&b->lock);
    if (loop_is_current(b->device.host->loop))
        loop_defer(b->device.host->loop, &b->deferred);
    else
        wake_signal(&b->wake);
}

/* The request in b->scratch with size bytes of data, read from the guest if take. NULL: no memory. */
static struct copy *copy_new(struct virtio_blk *b, unsigned queue, enum block_op op, size_t size, bool take)
{
    struct copy *c = buffer_pool_get(&b->pool, size);

    if (!c)
        return NULL;
    c->request = (struct block_request){.op = op, .size = size, .data = c->data, .done = request_done};
    c->blk = b;
    c->life = b->life;
    c->queue = queue;
    c->range = c->ranges = 0;
    c->write_through = op != BLOCK_READ && op != BLOCK_FLUSH &&
                       !virtio_has_feature(&b->transport.virtio, VIRTIO_BLK_F_FLUSH);
    c->size = size;
    vq_chain_copy(&c->chain, &b->scratch);
    if (take)
        vq_chain_read(&c->chain, sizeof(struct virtio_blk_outhdr), c->data, size);
    return c;
}

static void copy_free(struct virtio_blk *b, struct copy *c)
{
    buffer_pool_put(&b->pool, c, c->size);
}

static void issue(struct virtio_blk *b, struct copy *c)
{
    b->issued[c->queue]++;
    b->copies_size += c->size;
    block_submit(b->top, &c->request);
}

static bool is_inside(const struct virtio_blk *b, uint64_t sector, uint64_t sectors)
{
    return sector <= b->sectors && sectors <= b->sectors - sector;
}

/* False: not a request for this disk. */
static bool transfer(struct virtio_blk *b, unsigned queue, enum block_op op, uint64_t sector, size_t size)
{
    struct copy *c;

    if (size % SECTOR_SIZE || size > REQUEST_SIZE_MAX || !is_inside(b, sector, size / SECTOR_SIZE) ||
        (op == BLOCK_WRITE && b->top->readonly))
        return false;
    c = copy_new(b, queue, op, size, op == BLOCK_WRITE);
    if (!c)
        return false;
    c->request.offset = sector * SECTOR_SIZE;
    issue(b, c);
    return true;
}

static bool flush(struct virtio_blk *b, unsigned queue)
{
    struct copy *c = copy_new(b, queue, BLOCK_FLUSH, 0, false);

    if (c)
        issue(b, c);
    return c;
}

/* --- discard and write-zeroes: both make zeroes --- */

/* Range c->range of the list that c has. */
static void set_range(struct copy *c)
{
    struct virtio_blk_discard_write_zeroes range;

    memcpy(&range, c->data + c->range * sizeof(range), sizeof(range));
    c->request.offset = le64toh(range.sector) * SECTOR_SIZE;
    c->request.size = (uint64_t)le32toh(range.num_sectors) * SECTOR_SIZE;
}

static uint8_t check_range(const struct virtio_blk *b, const struct virtio_blk_discard_write_zeroes *range,
                           bool discard)
{
    uint32_t sectors = le32toh(range->num_sectors), flags = le32toh(range->flags);

    if (flags & ~(discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
        return VIRTIO_BLK_S_UNSUPP;
    return sectors <= RANGE_SECTORS_MAX && is_inside(b, le64toh(range->sector), sectors) ? VIRTIO_BLK_S_OK
                                                                                         : VIRTIO_BLK_S_IOERR;
}

/* Looks at all of it before anything is done. *ret_unmap: every range may be given back. */
static uint8_t check_ranges(const struct virtio_blk *b, const struct copy *c, bool discard, bool *ret_unmap)
{
    struct virtio_blk_discard_write_zeroes range;

    *ret_unmap = true;
    for (unsigned i = 0; i < c->ranges; i++) {
        uint8_t status;

        memcpy(&range, c->data + i * sizeof(range), sizeof(range));
        status = check_range(b, &range, discard);
        if (status != VIRTIO_BLK_S_OK)
            return status;
        *ret_unmap &= discard || range.flags;
    }
    return VIRTIO_BLK_S_OK;
}

/* VIRTIO_BLK_S_OK: issued. */
static uint8_t zero(struct virtio_blk *b, unsigned queue, bool discard, size_t size)
{
    const size_t each = sizeof(struct virtio_blk_discard_write_zeroes);
    uint8_t status;
    struct copy *c;

    if (!virtio_has_feature(&b->transport.virtio, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
        return VIRTIO_BLK_S_UNSUPP;
    if (!size || size % each || size / each > RANGES_MAX || b->top->readonly)
        return VIRTIO_BLK_S_IOERR;
    c = copy_new(b, queue, BLOCK_ZERO, size, true);
    if (!c)
        return VIRTIO_BLK_S_IOERR;
    c->ranges = size / each;
    status = check_ranges(b, c, discard, &c->request.unmap);
    if (status != VIRTIO_BLK_S_OK) {
        copy_free(b, c);
        return status;
    }
    set_range(c);
    issue(b, c);
    return VIRTIO_BLK_S_OK;
}

/* --- from the guest --- */

/* Starts the request in b->scratch, or answers it at once. */
static void handle_request(struct virtio_blk *b, unsigned queue, const struct virtio_blk_outhdr *h)
{
    const struct vq_chain *c = &b->scratch;
    size_t out = c->out_bytes - sizeof(*h), in = c->in_bytes - 1;
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    uint64_t sector = le64toh(h->sector);
    uint32_t type = le32toh(h->type);
    uint8_t status = VIRTIO_BLK_S_IOERR;

    switch (type) {
    case VIRTIO_BLK_T_IN:
        if (transfer(b, queue, BLOCK_READ, sector, in))
            return;
        break;
    case VIRTIO_BLK_T_OUT:
        if (transfer(b, queue, BLOCK_WRITE, sector, out))
            return;
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (flush(b, queue))
            return;
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        status = zero(b, queue, type == VIRTIO_BLK_T_DISCARD, out);
        if (status == VIRTIO_BLK_S_OK)
            return;
        break;
    case VIRTIO_BLK_T_GET_ID:
        memcpy(id, b->device.id, strnlen(b->device.id, sizeof(id)));
        complete(b, queue, c, id, in < sizeof(id) ? in : sizeof(id), VIRTIO_BLK_S_OK);
        return;
    default:
        status = VIRTIO_BLK_S_UNSUPP;
    }
    complete(b, queue, c, NULL, 0, status);
}

static bool may_issue(const struct virtio_blk *b)
{
    return !b->stale && b->copies_size < COPIES_SIZE_MAX;
}

/* The next request that nobody works on, into b->scratch: first those that the side before us had popped. */
static bool next_request(struct virtio_blk *b, unsigned queue)
{
    struct virtqueue *q = get_queue(b, queue);

    if (b->issued[queue] < q->inflight_count)
        return virtqueue_refetch(q, b->issued[queue], &b->scratch);
    return virtqueue_pop(q, &b->scratch);
}

static void handle_requests(struct virtio_blk *b, unsigned queue)
{
    struct virtqueue *q = get_queue(b, queue);
    struct virtio_blk_outhdr h;
    unsigned budget = BATCH;

    do {
        while (budget && may_issue(b) && next_request(b, queue)) {
            budget--;
            if (vq_chain_read(&b->scratch, 0, &h, sizeof(h)) < sizeof(h) || !b->scratch.in_bytes) {
                q->broken = true;
                break;
            }
            handle_request(b, queue, &h);
        }
        b->starved |= !may_issue(b); /* a completion looks again */
    } while (budget && may_issue(b) && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&b->transport, queue);
    virtio_queue_done(&b->transport.virtio, queue);
}

/* --- from the chain --- */

/* A guest whose disk fails makes no flood of it. */
static void tell_error(struct virtio_blk *b, const struct block_request *r)
{
    if (r->error == b->told)
        return;
    b->told = r->error;
    log_warn("disk %s: cannot %s %llu bytes at %llu: %s; the guest is told of an I/O error, also of those "
             "that follow",
             b->device.id, block_op_name(r->op), (unsigned long long)r->size, (unsigned long long)r->offset,
             strerror(r->error));
}

/* True: c is not over, the chain has it again. */
static bool go_on(struct virtio_blk *b, struct copy *c)
{
    if (c->request.error)
        return false;
    if (c->range + 1 < c->ranges) {
        c->range++;
        set_range(c);
    } else if (c->write_through) {
        c->write_through = false;
        c->request.op = BLOCK_FLUSH;
    } else {
        return false;
    }
    block_submit(b->top, &c->request);
    return true;
}

/* Takes c. */
static void finish(struct virtio_blk *b, struct copy *c)
{
    int error = c->request.error;
    bool is_read = c->request.op == BLOCK_READ;

    b->copies_size -= c->size;
    if (c->life != b->life) {
        b->stale--;
    } else {
        b->issued[c->queue]--;
        if (error)
            tell_error(b, &c->request);
        if (virtio_is_running(&b->transport.virtio))
            complete(b, c->queue, &c->chain, c->data, is_read && !error ? c->size : 0,
                     error ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
    }
    copy_free(b, c);
}

static struct block_request *take_done(struct virtio_blk *b)
{
    struct block_request *r;

    task_lock(&b->lock);
    r = b->done;
    b->done = NULL;
    b->done_end = &b->done;
    task_unlock(&b->lock);
    return r;
}

static void handle_done(void *opaque)
{
    struct virtio_blk *b = opaque;
    uint32_t touched = 0;

    for (struct block_request *r = take_done(b), *next; r; r = next) {
        struct copy *c = (struct copy *)r;

        next = r->next;
        if (c->life == b->life && go_on(b, c))
            continue;
        touched |= 1u << c->queue;
        finish(b, c);
    }
    if (b->starved && may_issue(b)) {
        b->starved = false;
        touched = ~0u;
    }
    for (unsigned i = 0; i < b->queues; i++) {
        if (touched >> i & 1)
            virtio_kick(&b->transport.virtio, i);
    }
}

/* --- virtio --- */

static void blk_kick(struct virtio_device *v, unsigned queue)
{
    handle_requests(from_virtio(v), queue);
}

/* What is in flight and not issued is taken up by the kicks that follow. */
static void blk_start(struct virtio_device *v)
{
    (void)v;
}

static void blk_stop(struct virtio_device *v)
{
    struct virtio_blk *b = from_virtio(v);

    b->life++;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        b->stale += b->issued[i];
        b->issued[i] = 0;
    }
}

static void blk_read_config(struct virtio_device *v, uint8_t *config)
{
    struct virtio_blk *b = from_virtio(v);

    le64_put(config + offsetof(struct virtio_blk_config, capacity), b->sectors);
    le32_put(config + offsetof(struct virtio_blk_config, size_max), SEGMENT_SIZE_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, seg_max), SEGMENTS_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, blk_size), SECTOR_SIZE);
    le16_put(config + offsetof(struct virtio_blk_config, num_queues), b->queues);
    le32_put(config + offsetof(struct virtio_blk_config, max_discard_sectors), RANGE_SECTORS_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, max_discard_seg), RANGES_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, discard_sector_alignment), RANGE_ALIGNMENT);
    le32_put(config + offsetof(struct virtio_blk_config, max_write_zeroes_sectors), RANGE_SECTORS_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, max_write_zeroes_seg), RANGES_MAX);
    config[offsetof(struct virtio_blk_config, write_zeroes_may_unmap)] = 1;
}

static const struct virtio_ops blk_ops = {
    .device_id = VIRTIO_ID_BLOCK,
    .features = FEATURES,
    .config_size = offsetof(struct virtio_blk_config, unused1),
    .read_config = blk_read_config,
    .start = blk_start,
    .stop = blk_stop,
    .kick = blk_kick,
};

/* --- saved state --- */

static bool blk_post_load(void *opaque, int version, Error **errp)
{
    struct virtio_blk *b = opaque;
    uint64_t sectors = b->top->size / SECTOR_SIZE;
    uint32_t queues = b->transport.virtio.queue_count;

    (void)version;
    if (b->sectors == sectors && b->queues == queues)
        return virtio_pci_post_load(&b->transport, errp);
    error_setg(errp,
               "disk %s: the state is of a disk of %llu sectors and %u queues, the one here has %llu and %u",
               b->device.id, (unsigned long long)b->sectors, b->queues, (unsigned long long)sectors, queues);
    b->sectors = sectors;
    b->queues = queues;
    virtio_pci_reset(&b->transport);
    return false;
}

static const VMStateField blk_fields[] = {
    VMSTATE_STRUCT(struct virtio_blk, transport, &virtio_pci_vmstate, 1),
    VMSTATE_U64(struct virtio_blk, sectors, 1),
    VMSTATE_U32(struct virtio_blk, queues, 2),
    VMSTATE_END,
};
/* Version 1 was another device, with one queue and without discard: what its guest found is not here. */
static const VMStateDescription blk_vmstate = {.name = "virtio-blk",
                                               .version = 2,
                                               .minimum_version = 2,
                                               .fields = blk_fields,
                                               .post_load = blk_post_load};

/* --- device --- */

/* What the machine had under way is over when it begins anew: its disk may be given to something else then. */
static void blk_reset(Device *d)
{
    struct virtio_blk *b = (struct virtio_blk *)d;

    virtio_pci_reset(&b->transport);
    block_drain(b->top);
}

static void blk_take_over(Device *d)
{
    virtio_pci_take_over(&((struct virtio_blk *)d)->transport);
}

/* What the chain still has ends here: it touches nothing of the guest. */
static void drain(struct virtio_blk *b)
{
    struct block_request *next;

    block_drain(b->top);
    for (struct block_request *r = take_done(b); r; r = next) {
        next = r->next;
        copy_free(b, (struct copy *)r);
    }
    loop_undefer(b->device.host->loop, &b->deferred);
}

static void blk_destroy(Device *d)
{
    struct virtio_blk *b = (struct virtio_blk *)d;

    drain(b);
    perdure_vmstate_unregister(&blk_vmstate, b);
    virtio_pci_destroy(&b->transport);
    wake_destroy(&b->wake);
    task_mutex_destroy(&b->lock);
    block_close(b->top);
    buffer_pool_destroy(&b->pool);
    free(b);
}

static const struct device_class blk_class = {
    .name = "virtio-blk", .reset = blk_reset, .take_over = blk_take_over, .destroy = blk_destroy};

static void init_virtio(struct virtio_blk *b)
{
    struct virtio_device *v = &b->transport.virtio;

    v->ops = &blk_ops;
    v->id = b->device.id;
    v->queue_count = b->queues;
}

static void choose_features(struct virtio_blk *b)
{
    struct virtio_device *v = &b->transport.virtio;

    v->features |= b->top->readonly ? 1ull << VIRTIO_BLK_F_RO : WRITABLE_FEATURES;
    if (b->queues > 1)
        v->features |= 1ull << VIRTIO_BLK_F_MQ;
}

static bool blk_init(struct virtio_blk *b, Error **errp)
{
    struct device_host *h = b->device.host;

    init_virtio(b);
    if (!wake_init(&b->wake, h->loop, handle_done, b, errp))
        return false;
    if (virtio_pci_init(&b->transport, h, errp)) {
        choose_features(b);
        if (perdure_vmstate_register(&blk_vmstate, b->transport.pci.slot, b, errp))
            return true;
        virtio_pci_destroy(&b->transport);
    }
    wake_destroy(&b->wake);
    return false;
}

Device *virtio_blk_new(struct device_host *h, const char *id, unsigned slot, Block *top, unsigned queues,
                       Error **errp)
{
    struct virtio_blk *b = calloc(1, sizeof(*b));

    if (!b) {
        error_setg(errp, "device %s: out of memory", id);
        block_close(top);
        return NULL;
    }
    b->device = (Device){.class = &blk_class, .host = h};
    strncpy(b->device.id, id, sizeof(b->device.id) - 1);
    b->top = top;
    b->sectors = top->size / SECTOR_SIZE;
    b->queues = queues;
    b->transport.pci.slot = slot;
    b->pool = (struct buffer_pool){.limit = POOL_LIMIT, .header = sizeof(struct copy)};
    b->done_end = &b->done;
    b->deferred = (struct loop_deferred){.fn = handle_done, .opaque = b};
    task_mutex_init(&b->lock);
    if (blk_init(b, errp))
        return &b->device;
    task_mutex_destroy(&b->lock);
    block_close(top);
    free(b);
    return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk: one request queue on a raw image.
 *
 * A request is copied out of guest RAM when it is popped, carried out by the disk worker on the copy, and
 * completed on the loop, where data read goes to guest RAM in the same section as the used index: a pause
 * never sees half of it, and a guest that changes a page meanwhile changes nothing.
 *
 * Requests are not drained for a pause. The heads in flight are part of the state; the first `issued` of them
 * are with our worker, the rest (all of them, after a takeover) are issued before anything new is popped.
 */
#include "device/devices.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "device/disk_worker.h"
#include "device/virtio_pci.h"

#define SECTOR_SIZE 512u

/* Largest request of a driver that keeps to SEG_MAX and SIZE_MAX, and how much may be copied at a time. */
#define SEGMENTS_MAX     126u
#define SEGMENT_SIZE_MAX 65536u
#define REQUEST_SIZE_MAX (SEGMENTS_MAX * (size_t)SEGMENT_SIZE_MAX)
#define COPIES_SIZE_MAX  (2 * REQUEST_SIZE_MAX)

#define BATCH 128

#define FEATURES                                                                                             \
    (1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |          \
     1ull << VIRTIO_BLK_F_FLUSH)

struct virtio_blk {
    Device device;
    struct virtio_pci transport;
    RawImage *image;
    struct disk_worker *worker;
    struct wake done;
    bool readonly;
    uint64_t sectors; /* saved: both sides must have as many */

    /* Not saved. */
    uint64_t life;      /* counts resets: what was submitted in another life is thrown away */
    uint32_t issued;    /* the first so many heads in flight are with the worker */
    size_t copies_size; /* bytes of all requests at the worker */
    struct vq_chain scratch;
};

/* A request at the worker. */
struct copy {
    struct disk_request disk;
    uint64_t life;
    struct vq_chain chain;
    uint8_t data[];
};

static struct virtio_blk *from_virtio(struct virtio_device *v)
{
    return (struct virtio_blk *)((char *)v - offsetof(struct virtio_blk, transport.virtio));
}

static struct virtqueue *queue(struct virtio_blk *b)
{
    return &b->transport.virtio.queues[0];
}

/* The status is the last byte that the device may write; data, where there is some, lies before it. */
static void complete(struct virtio_blk *b, const struct vq_chain *c, const void *data, size_t size,
                     uint8_t status)
{
    struct virtqueue *q = queue(b);
    size_t written = vq_chain_write(q, c, 0, data, size);

    written += vq_chain_write(q, c, c->in_bytes - 1, &status, 1);
    virtqueue_push(q, c->head, written);
}

/* The worker's share: c is in b->scratch and is copied. False: no memory. */
static bool submit(struct virtio_blk *b, enum disk_operation operation, uint64_t sector, size_t size)
{
    const struct vq_chain *c = &b->scratch;
    struct copy *r = malloc(sizeof(*r) + size);

    if (!r)
        return false;
    r->disk = (struct disk_request){
        .operation = operation, .offset = sector * SECTOR_SIZE, .size = size, .data = r->data};
    r->life = b->life;
    r->chain = *c;
    if (operation == DISK_WRITE)
        vq_chain_read(c, sizeof(struct virtio_blk_outhdr), r->data, size);
    b->issued++;
    b->copies_size += size;
    disk_worker_submit(b->worker, &r->disk);
    return true;
}

static bool is_inside(const struct virtio_blk *b, uint64_t sector, size_t size)
{
    return size % SECTOR_SIZE == 0 && size <= REQUEST_SIZE_MAX && sector <= b->sectors &&
           size / SECTOR_SIZE <= b->sectors - sector;
}

/* Starts the request in b->scratch, or answers it at once. */
static void handle_request(struct virtio_blk *b, const struct virtio_blk_outhdr *h)
{
    const struct vq_chain *c = &b->scratch;
    size_t out = c->out_bytes - sizeof(*h), in = c->in_bytes - 1;
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    uint64_t sector = le64toh(h->sector);
    uint8_t status = VIRTIO_BLK_S_IOERR;

    switch (le32toh(h->type)) {
    case VIRTIO_BLK_T_IN:
        if (is_inside(b, sector, in) && submit(b, DISK_READ, sector, in))
            return;
        break;
    case VIRTIO_BLK_T_OUT:
        if (!b->readonly && is_inside(b, sector, out) && submit(b, DISK_WRITE, sector, out))
            return;
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (submit(b, DISK_FLUSH, 0, 0))
            return;
        break;
    case VIRTIO_BLK_T_GET_ID:
        memcpy(id, b->device.id, strnlen(b->device.id, sizeof(id)));
        complete(b, c, id, in < sizeof(id) ? in : sizeof(id), VIRTIO_BLK_S_OK);
        return;
    default:
        status = VIRTIO_BLK_S_UNSUPP;
    }
    complete(b, c, NULL, 0, status);
}

/* The next request that nobody works on, into b->scratch: first those that the side before us had popped. */
static bool next_request(struct virtio_blk *b)
{
    struct virtqueue *q = queue(b);

    if (b->copies_size >= COPIES_SIZE_MAX)
        return false;
    if (b->issued < q->inflight_count)
        return virtqueue_refetch(q, b->issued, &b->scratch);
    return virtqueue_pop(q, &b->scratch);
}

static void handle_requests(struct virtio_blk *b)
{
    struct virtqueue *q = queue(b);
    struct virtio_blk_outhdr h;
    unsigned budget = BATCH;

    do {
        while (budget && next_request(b)) {
            budget--;
            if (vq_chain_read(&b->scratch, 0, &h, sizeof(h)) < sizeof(h) || !b->scratch.in_bytes) {
                q->broken = true;
                break;
            }
            handle_request(b, &h);
        }
        /* Full: the next completion looks again. */
        if (b->copies_size >= COPIES_SIZE_MAX)
            break;
    } while (budget && virtqueue_enable_kicks(q, 0));
    if (!budget)
        virtio_pci_kick_later(&b->transport, 0);
    virtio_queue_done(&b->transport.virtio, 0);
}

static void finish(struct virtio_blk *b, struct copy *r)
{
    bool is_read = r->disk.operation == DISK_READ;

    b->copies_size -= r->disk.size;
    if (r->life == b->life && virtio_is_running(&b->transport.virtio)) {
        b->issued--;
        complete(b, &r->chain, r->data, is_read && r->disk.ok ? r->disk.size : 0,
                 r->disk.ok ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
    }
    free(r);
}

static void handle_done(void *opaque)
{
    struct virtio_blk *b = opaque;
    struct disk_request *r;

    while ((r = disk_worker_take_done(b->worker)))
        finish(b, (struct copy *)r);
    virtio_kick(&b->transport.virtio, 0);
}

static void worker_done(void *opaque)
{
    struct virtio_blk *b = opaque;

    wake_signal(&b->done);
}

/* --- virtio --- */

static void blk_kick(struct virtio_device *v, unsigned queue_index)
{
    (void)queue_index;
    handle_requests(from_virtio(v));
}

/* What is in flight and not issued is taken up by the kick that follows. */
static void blk_start(struct virtio_device *v)
{
    from_virtio(v)->issued = 0;
}

static void blk_stop(struct virtio_device *v)
{
    struct virtio_blk *b = from_virtio(v);

    b->life++;
    b->issued = 0;
}

static void blk_read_config(struct virtio_device *v, uint8_t *config)
{
    struct virtio_blk *b = from_virtio(v);

    le64_put(config + offsetof(struct virtio_blk_config, capacity), b->sectors);
    le32_put(config + offsetof(struct virtio_blk_config, size_max), SEGMENT_SIZE_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, seg_max), SEGMENTS_MAX);
    le32_put(config + offsetof(struct virtio_blk_config, blk_size), SECTOR_SIZE);
}

static const struct virtio_ops blk_ops = {
    .device_id = VIRTIO_ID_BLOCK,
    .features = FEATURES,
    .queue_count = 1,
    .config_size = offsetof(struct virtio_blk_config, physical_block_exp),
    .read_config = blk_read_config,
    .start = blk_start,
    .stop = blk_stop,
    .kick = blk_kick,
};

/* --- saved state --- */

static bool blk_post_load(void *opaque, int version, Error **errp)
{
    struct virtio_blk *b = opaque;
    uint64_t here = raw_image_size(b->image) / SECTOR_SIZE;

    (void)version;
    if (b->sectors != here) {
        error_setg(errp, "disk %s: the state is of a disk of %llu sectors, the one here has %llu",
                   b->device.id, (unsigned long long)b->sectors, (unsigned long long)here);
        b->sectors = here;
        virtio_pci_reset(&b->transport);
        return false;
    }
    return virtio_pci_post_load(&b->transport, errp);
}

static const VMStateField blk_fields[] = {
    VMSTATE_STRUCT(struct virtio_blk, transport, &virtio_pci_vmstate, 1),
    VMSTATE_U64(struct virtio_blk, sectors, 1),
    VMSTATE_END,
};
static const VMStateDescription blk_vmstate = {.name = "virtio-blk",
                                               .version = 1,
                                               .minimum_version = 1,
                                               .fields = blk_fields,
                                               .post_load = blk_post_load};

/* --- device --- */

static void blk_reset(Device *d)
{
    virtio_pci_reset(&((struct virtio_blk *)d)->transport);
}

static void blk_take_over(Device *d)
{
    virtio_pci_take_over(&((struct virtio_blk *)d)->transport);
}

/* Undoes blk_init as far as it came. */
static void blk_free(struct virtio_blk *b)
{
    struct disk_request *r;

    if (b->worker) {
        disk_worker_stop(b->worker);
        while ((r = disk_worker_take_done(b->worker)))
            free(r);
        disk_worker_free(b->worker);
        wake_destroy(&b->done);
    }
    raw_image_close(b->image);
    free(b);
}

static void blk_destroy(Device *d)
{
    struct virtio_blk *b = (struct virtio_blk *)d;

    perdure_vmstate_unregister(&blk_vmstate, b);
    virtio_pci_destroy(&b->transport);
    blk_free(b);
}

static const struct device_class blk_class = {
    .name = "virtio-blk", .reset = blk_reset, .take_over = blk_take_over, .destroy = blk_destroy};

static bool blk_init(struct virtio_blk *b, const char *path, Error **errp)
{
    struct device_host *h = b->device.host;

    b->image = raw_image_open(b->device.id, path, b->readonly, errp);
    if (!b->image)
        return false;
    b->sectors = raw_image_size(b->image) / SECTOR_SIZE;
    if (!wake_init(&b->done, h->loop, handle_done, b, errp))
        return false;
    b->worker = disk_worker_new(b->image, worker_done, b, errp);
    if (!b->worker) {
        wake_destroy(&b->done);
        return false;
    }
    if (!virtio_pci_init(&b->transport, h, errp))
        return false;
    if (b->readonly)
        b->transport.virtio.features |= 1ull << VIRTIO_BLK_F_RO;
    if (perdure_vmstate_register(&blk_vmstate, b->transport.pci.slot, b, errp))
        return true;
    virtio_pci_destroy(&b->transport);
    return false;
}

Device *virtio_blk_new(struct device_host *h, const char *id, unsigned slot, const char *path, bool readonly,
                       Error **errp)
{
    struct virtio_blk *b = calloc(1, sizeof(*b));

    if (!b) {
        error_setg(errp, "device %s: out of memory", id);
        return NULL;
    }
    b->device = (Device){.class = &blk_class, .host = h};
    strncpy(b->device.id, id, sizeof(b->device.id) - 1);
    b->readonly = readonly;
    b->transport.virtio.ops = &blk_ops;
    b->transport.virtio.id = b->device.id;
    b->transport.pci.slot = slot;
    if (blk_init(b, path, errp))
        return &b->device;
    blk_free(b);
    return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/virtqueue.h"

#include <stddef.h>
#include <string.h>

void virtqueue_reset(struct virtqueue *q)
{
    *q = (struct virtqueue){.memory = q->memory, .size = VIRTQUEUE_SIZE_MAX, .vector = VIRTQUEUE_NO_VECTOR};
}

/* Sizes with the event words at the end, which are there in any case. */
static uint64_t avail_size(const struct virtqueue *q)
{
    return sizeof(struct vring_avail) + 2 * q->size + 2;
}

static uint64_t used_size(const struct virtqueue *q)
{
    return sizeof(struct vring_used) + sizeof(struct vring_used_elem) * q->size + 2;
}

bool virtqueue_map(struct virtqueue *q)
{
    if (q->desc_gpa % VRING_DESC_ALIGN_SIZE || q->avail_gpa % VRING_AVAIL_ALIGN_SIZE ||
        q->used_gpa % VRING_USED_ALIGN_SIZE)
        return false;
    q->desc = guest_memory_map(q->memory, q->desc_gpa, sizeof(struct vring_desc) * q->size);
    q->avail = guest_memory_map(q->memory, q->avail_gpa, avail_size(q));
    q->used = guest_memory_map(q->memory, q->used_gpa, used_size(q));
    return q->desc && q->avail && q->used;
}

/*
 * Indices and event words, shared with the guest. Each side writes its own and then looks at the other's;
 * were the two reordered, both could wait. So they are sequentially consistent (not plain accesses and a
 * fence, which ThreadSanitizer does not know).
 */
static uint16_t load16(const uint16_t *p)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

static bool broke(struct virtqueue *q)
{
    q->broken = true;
    return false;
}

/* --- chains --- */

static bool add_buffer(struct virtqueue *q, struct vq_chain *c, const struct vring_desc *d)
{
    unsigned i = c->out_count + c->in_count;
    bool in = d->flags & VRING_DESC_F_WRITE;
    void *host = guest_memory_map(q->memory, d->addr, d->len);

    /* A buffer of no bytes or outside RAM, and one to read from after one to write to, are not what drivers
     * make. */
    if (!host || (!in && c->in_count))
        return broke(q);
    c->iov[i] = (struct iovec){.iov_base = host, .iov_len = d->len};
    c->gpa[i] = d->addr;
    if (in) {
        c->in_count++;
        c->in_bytes += d->len;
    } else {
        c->out_count++;
        c->out_bytes += d->len;
    }
    return true;
}

/* One descriptor table: the ring's, or an indirect one. */
struct table {
    const struct vring_desc *desc;
    uint32_t size;
    bool indirect;
};

/* d names an indirect table: the walk goes on at its beginning. */
static bool enter_indirect(struct virtqueue *q, struct table *t, const struct vring_desc *d)
{
    if (t->indirect || !q->indirect || d->flags & VRING_DESC_F_NEXT || d->len % sizeof(*t->desc) ||
        d->len / sizeof(*t->desc) > VIRTQUEUE_CHAIN_MAX)
        return broke(q);
    *t = (struct table){.desc = guest_memory_map(q->memory, d->addr, d->len),
                        .size = d->len / sizeof(*t->desc),
                        .indirect = true};
    /* memcpy below needs no alignment. */
    return t->desc ? true : broke(q);
}

static bool walk(struct virtqueue *q, uint16_t head, struct vq_chain *c)
{
    struct table t = {.desc = q->desc, .size = q->size};
    struct vring_desc d;
    uint32_t i = head;

    c->head = head;
    c->out_count = c->in_count = 0;
    c->out_bytes = c->in_bytes = 0;
    do {
        if (i >= t.size)
            return broke(q);
        memcpy(&d, (const uint8_t *)t.desc + i * sizeof(d), sizeof(d));
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (!enter_indirect(q, &t, &d))
                return false;
            i = 0;
            d.flags = VRING_DESC_F_NEXT;
            continue;
        }
        /* The bound also ends a chain that runs in a circle. */
        if (c->out_count + c->in_count == VIRTQUEUE_CHAIN_MAX)
            return broke(q);
        if (!add_buffer(q, c, &d))
            return false;
        i = d.next;
    } while (d.flags & VRING_DESC_F_NEXT);
    return true;
}

bool virtqueue_pop(struct virtqueue *q, struct vq_chain *c)
{
    uint16_t waiting, head;

    if (q->broken || !q->used)
        return false;
    waiting = load16(&q->avail->idx) - q->last_avail;
    if (!waiting)
        return false;
    /* More than the ring holds, or heads that the guest cannot own because we still have them. */
    if (waiting > q->size || q->inflight_count >= q->size)
        return broke(q);
    head = load16(&q->avail->ring[q->last_avail & (q->size - 1)]);
    if (head >= q->size)
        return broke(q);
    if (!walk(q, head, c))
        return false;
    q->last_avail++;
    q->inflight[q->inflight_count++] = head;
    return true;
}

bool virtqueue_refetch(struct virtqueue *q, uint32_t i, struct vq_chain *c)
{
    if (q->broken || !q->used || i >= q->inflight_count)
        return false;
    return walk(q, q->inflight[i], c);
}

void virtqueue_unpop(struct virtqueue *q, unsigned n)
{
    q->last_avail -= n;
    q->inflight_count -= n;
}

static void forget_inflight(struct virtqueue *q, uint16_t head)
{
    uint32_t i = 0;

    while (i < q->inflight_count && q->inflight[i] != head)
        i++;
    if (i == q->inflight_count)
        return;
    q->inflight_count--;
    memmove(&q->inflight[i], &q->inflight[i + 1], (q->inflight_count - i) * sizeof(q->inflight[0]));
}

/* --- the used ring --- */

static void mark_used(struct virtqueue *q, const void *field, size_t size)
{
    guest_memory_mark_dirty(q->memory, q->used_gpa + ((const uint8_t *)field - (const uint8_t *)q->used),
                            size);
}

void virtqueue_fill(struct virtqueue *q, uint16_t head, uint32_t written)
{
    struct vring_used_elem *e = &q->used->ring[(uint16_t)(q->used_idx + q->filled) & (q->size - 1)];

    *e = (struct vring_used_elem){.id = head, .len = written};
    mark_used(q, e, sizeof(*e));
    q->filled++;
    forget_inflight(q, head);
}

void virtqueue_flush(struct virtqueue *q)
{
    q->used_idx += q->filled;
    q->filled = 0;
    store16(&q->used->idx, q->used_idx);
    mark_used(q, &q->used->idx, sizeof(q->used->idx));
}

void virtqueue_push(struct virtqueue *q, uint16_t head, uint32_t written)
{
    virtqueue_fill(q, head, written);
    virtqueue_flush(q);
}

/* --- who tells whom --- */

bool virtqueue_enable_kicks(struct virtqueue *q, unsigned waiting)
{
    uint16_t next = q->last_avail + waiting, *avail_event;

    if (q->broken || !q->used)
        return false;
    if (q->event_idx) {
        avail_event = (void *)((uint8_t *)q->used + used_size(q) - sizeof(*avail_event));
        store16(avail_event, next);
        mark_used(q, avail_event, sizeof(*avail_event));
    }
    return load16(&q->avail->idx) != next;
}

bool virtqueue_should_notify(struct virtqueue *q)
{
    uint16_t before = q->signalled;

    if (!q->used || q->used_idx == before)
        return false;
    q->signalled = q->used_idx;
    if (!q->event_idx)
        return !(load16(&q->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
    return vring_need_event(load16(&q->avail->ring[q->size]), q->used_idx, before);
}

/* --- copies --- */

void vq_chain_copy(struct vq_chain *to, const struct vq_chain *from)
{
    unsigned n = from->out_count + from->in_count;

    memcpy(to, from, offsetof(struct vq_chain, iov));
    memcpy(to->iov, from->iov, n * sizeof(to->iov[0]));
    memcpy(to->gpa, from->gpa, n * sizeof(to->gpa[0]));
}

size_t vq_chain_read(const struct vq_chain *c, size_t offset, void *buf, size_t n)
{
    size_t done = 0;

    for (unsigned i = 0; i < c->out_count && done < n; i++) {
        size_t len = c->iov[i].iov_len, part;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        part = len - offset < n - done ? len - offset : n - done;
        memcpy((uint8_t *)buf + done, (uint8_t *)c->iov[i].iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t vq_chain_write(struct virtqueue *q, const struct vq_chain *c, size_t offset, const void *buf, size_t n)
{
    size_t done = 0;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count && done < n; i++) {
        size_t len = c->iov[i].iov_len, part;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        part = len - offset < n - done ? len - offset : n - done;
        memcpy((uint8_t *)c->iov[i].iov_base + offset, (const uint8_t *)buf + done, part);
        guest_memory_mark_dirty(q->memory, c->gpa[i] + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

/* --- saved state --- */

static const VMStateField virtqueue_fields[] = {
    VMSTATE_BOOL(struct virtqueue, enabled, 1),
    VMSTATE_U16(struct virtqueue, size, 1),
    VMSTATE_U16(struct virtqueue, vector, 1),
    VMSTATE_U64(struct virtqueue, desc_gpa, 1),
    VMSTATE_U64(struct virtqueue, avail_gpa, 1),
    VMSTATE_U64(struct virtqueue, used_gpa, 1),
    VMSTATE_U16(struct virtqueue, last_avail, 1),
    VMSTATE_U16(struct virtqueue, used_idx, 1),
    VMSTATE_U16(struct virtqueue, signalled, 1),
    VMSTATE_U32(struct virtqueue, inflight_count, 1),
    {.name = "inflight",
     .type = VMSTATE_TYPE_INT,
     .offset = offsetof(struct virtqueue, inflight),
     .size = sizeof(uint16_t),
     .count = VIRTQUEUE_SIZE_MAX,
     .since = 1,
     .variable = true,
     .count_offset = offsetof(struct virtqueue, inflight_count)},
    VMSTATE_END,
};
const VMStateDescription virtqueue_vmstate = {
    .name = "virtqueue", .version = 1, .minimum_version = 1, .fields = virtqueue_fields};

const char *virtqueue_post_load(struct virtqueue *q, unsigned vectors)
{
    q->broken = false;
    q->filled = 0;
    q->desc = NULL;
    q->avail = NULL;
    q->used = NULL;
    if (!q->size || q->size > VIRTQUEUE_SIZE_MAX || q->size & (q->size - 1))
        return "its size is not a power of two up to 256";
    if (q->vector != VIRTQUEUE_NO_VECTOR && q->vector >= vectors)
        return "its interrupt vector does not exist";
    if (q->inflight_count > q->size || (uint16_t)(q->last_avail - q->used_idx) != q->inflight_count)
        return "its indices and its requests in flight disagree";
    for (uint32_t i = 0; i < q->inflight_count; i++) {
        if (q->inflight[i] >= q->size)
            return "a request in flight has no descriptor";
    }
    if (q->enabled && !virtqueue_map(q))
        return "its rings are not in RAM";
    return NULL;
}

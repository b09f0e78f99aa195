/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net and the PCI transport under it, with a port that keeps frames in memory.
 */
#include "virtio_fixture.h"

#include <fcntl.h>
#include <linux/virtio_net.h>
#include <unistd.h>

#define SLOT 2
enum { RX, TX, CONTROL };

#define BASIC    (1ull << VIRTIO_NET_F_MAC | 1ull << VIRTIO_NET_F_STATUS)
#define EVENTS   (1ull << VIRTIO_RING_F_EVENT_IDX)
#define MERGED   (1ull << VIRTIO_NET_F_MRG_RXBUF)
#define ANNOUNCE (1ull << VIRTIO_NET_F_CTRL_VQ | 1ull << VIRTIO_NET_F_GUEST_ANNOUNCE)

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct cable {
    NetPort port;
    bool full, closed;
    unsigned sent;
    uint8_t last[NET_FRAME_MAX];
    size_t last_size;
    uint64_t offload;
    int pipe[2];
};

static bool cable_send(NetPort *p, const struct iovec *iov, int n)
{
    struct cable *c = (struct cable *)p;

    if (c->full)
        return false;
    c->last_size = 0;
    for (int i = 0; i < n; i++) {
        memcpy(c->last + c->last_size, iov[i].iov_base, iov[i].iov_len);
        c->last_size += iov[i].iov_len;
    }
    c->sent++;
    return true;
}

/* A frame is a 4-byte length and its bytes in the pipe. */
static size_t cable_receive(NetPort *p, void *buf, size_t size)
{
    struct cable *c = (struct cable *)p;
    uint32_t n;

    if (read(c->pipe[0], &n, 4) != 4)
        return 0;
    assert_true(n <= size);
    assert_int_equal(read(c->pipe[0], buf, n), n);
    return n;
}

static bool cable_set_offload(NetPort *p, uint64_t features, Error **errp)
{
    (void)errp;
    ((struct cable *)p)->offload = features;
    return true;
}

static int cable_poll_fd(NetPort *p)
{
    return ((struct cable *)p)->pipe[0];
}

static void cable_close(NetPort *p)
{
    ((struct cable *)p)->closed = true;
}

static const struct net_port_ops cable_ops = {cable_send, cable_receive, cable_set_offload, cable_poll_fd,
                                              cable_close};

struct nic {
    struct fixture *f;
    Device *bridge, *device;
    struct cable cable;
    struct driver d;
};

static int setup(void **state)
{
    struct nic *n = calloc(1, sizeof(*n));

    n->f = fixture_new();
    n->bridge = pci_host_new(&n->f->host, NULL);
    n->cable.port = (NetPort){.ops = &cable_ops, .id = "net0"};
    assert_int_equal(pipe2(n->cable.pipe, O_NONBLOCK | O_CLOEXEC), 0);
    n->device = virtio_net_new(&n->f->host, "net0", SLOT, mac, &n->cable.port, NULL);
    assert_non_null(n->device);
    driver_find(&n->d, n->f, SLOT);
    *state = n;
    return 0;
}

static int teardown(void **state)
{
    struct nic *n = *state;

    device_destroy(n->device);
    assert_true(n->cable.closed);
    device_destroy(n->bridge);
    close(n->cable.pipe[0]);
    close(n->cable.pipe[1]);
    fixture_free(n->f);
    free(n);
    return 0;
}

static void put_frame(struct nic *n, size_t size)
{
    static uint8_t frame[4 + NET_FRAME_MAX];

    memcpy(frame, &(uint32_t){size}, 4);
    for (size_t i = 0; i < size; i++)
        frame[4 + i] = i < NET_VNET_HDR_SIZE ? 0 : i * 7;
    assert_int_equal(write(n->cable.pipe[1], frame, 4 + size), 4 + size);
}

/* size bytes at gpa are the part of such a frame that begins at offset. */
static void assert_frame(struct nic *n, uint64_t gpa, size_t offset, size_t size)
{
    const uint8_t *p = guest_ram(n->f, gpa);

    for (size_t i = 0; i < size; i++) {
        if (offset + i >= NET_VNET_HDR_SIZE && p[i] != (uint8_t)((offset + i) * 7))
            fail_msg("byte %zu of the frame is wrong", offset + i);
    }
}

static void test_negotiation(void **state)
{
    struct nic *n = *state;
    struct driver *d = &n->d;
    uint64_t offered = driver_offered(d);

    assert_true(offered & 1ull << VIRTIO_F_VERSION_1 && offered & EVENTS && offered & MERGED &&
                offered & ANNOUNCE);
    assert_false(offered & 1ull << VIRTIO_NET_F_MQ);
    assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_NUMQ, 2), 3);
    /* Too much, or not enough, is refused, and without that there is no way on. */
    assert_false(driver_negotiate(d, offered | 1ull << VIRTIO_NET_F_MQ));
    assert_false(driver_negotiate(d, BASIC));
    driver_set_status(d, ALL_OK);
    assert_false(driver_status(d) & VIRTIO_CONFIG_S_DRIVER_OK);
    driver_start(d, offered);
    assert_int_equal(n->cable.offload, offered);
    /* Fixed from here on. */
    common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
    common_write(d, VIRTIO_PCI_COMMON_GF, 0, 4);
    assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_GF, 4), (uint32_t)offered);
    common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
    assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), DRIVER_SIZE);
    common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 17, 2);
    assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 3, 2);
    assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);

    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(bus_read(n->f, IO_MEMORY, d->config + i, 1), mac[i]);
    assert_int_equal(bus_read(n->f, IO_MEMORY, d->config + 6, 2), VIRTIO_NET_S_LINK_UP);
}

static void add_tx(struct nic *n, size_t size, uint8_t fill)
{
    memset(guest_ram(n->f, DRIVER_BUFFERS), 0, NET_VNET_HDR_SIZE);
    memset(guest_ram(n->f, DRIVER_BUFFERS + 0x1000), fill, size);
    driver_add(
        &n->d, TX,
        (struct buffer[]){{DRIVER_BUFFERS, NET_VNET_HDR_SIZE, false}, {DRIVER_BUFFERS + 0x1000, size, false}},
        2);
}

static void test_transmit(void **state)
{
    struct nic *n = *state;

    driver_start(&n->d, BASIC | EVENTS);
    add_tx(n, 60, 0xaa);
    clear_dirty(n->f);
    driver_kick(&n->d, TX);
    assert_int_equal(n->cable.sent, 1);
    assert_int_equal(n->cable.last_size, NET_VNET_HDR_SIZE + 60);
    assert_int_equal(n->cable.last[NET_VNET_HDR_SIZE + 59], 0xaa);
    assert_int_equal(driver_used_count(&n->d, TX), 1);
    assert_int_equal(driver_used(&n->d, TX).len, 0);
    assert_true(is_dirty(n->f, DRIVER_QUEUE_GPA(TX) + 0x3000));
    assert_int_equal(n->f->msi_count, 1);
    assert_int_equal(n->f->msis[0].data, 0x40 + TX + 1);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.isr, 1), 1);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.isr, 1), 0);

    /* A frame of a header alone, and one too large, are no frames: done, and not sent. */
    driver_add(&n->d, TX, &(struct buffer){DRIVER_BUFFERS, NET_VNET_HDR_SIZE, false}, 1);
    driver_add(&n->d, TX, &(struct buffer){0, FIXTURE_RAM, false}, 1);
    driver_kick(&n->d, TX);
    assert_int_equal(driver_used_count(&n->d, TX), 2);
    assert_int_equal(n->cable.sent, 1);
    assert_int_equal(driver_status(&n->d), ALL_OK);
}

static void test_doorbell(void **state)
{
    struct nic *n = *state;
    unsigned i = 0;

    assert_true(loop_start(n->f->host.loop, NULL));
    driver_start(&n->d, BASIC);
    while (i < n->f->doorbell_count && n->f->doorbells[i].gpa != n->d.notify + TX * n->d.notify_multiplier)
        i++;
    assert_true(i < n->f->doorbell_count);
    add_tx(n, 60, 1);
    assert_int_equal(write(n->f->doorbells[i].fd, &(uint64_t){1}, 8), 8);
    eventually(driver_used_count(&n->d, TX) == 1);
}

/* A full port: the frame stays in the ring, is part of what is saved as if it had never been looked at, and
 * leaves later, once. */
static void test_transmit_full(void **state)
{
    struct nic *n = *state;

    assert_true(loop_start(n->f->host.loop, NULL));
    driver_start(&n->d, BASIC | EVENTS);
    n->cable.full = true;
    add_tx(n, 60, 2);
    add_tx(n, 61, 2);
    driver_kick(&n->d, TX);
    driver_kick(&n->d, TX);
    assert_int_equal(driver_used_count(&n->d, TX), 0);
    loop_lock(n->f->host.loop);
    n->cable.full = false;
    loop_unlock(n->f->host.loop);
    n->cable.port.writable(n->cable.port.writable_opaque);
    eventually(driver_used_count(&n->d, TX) == 2);
    assert_int_equal(n->cable.sent, 2);
    assert_int_equal(n->cable.last_size, NET_VNET_HDR_SIZE + 61);
}

static void test_receive_merged(void **state)
{
    struct nic *n = *state;
    struct vring_used_elem e;

    driver_start(&n->d, BASIC | EVENTS | MERGED);
    put_frame(n, 2500);
    driver_kick(&n->d, RX); /* no buffers yet */
    assert_int_equal(driver_used_count(&n->d, RX), 0);
    for (unsigned i = 0; i < 2; i++)
        driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS + i * 0x1000, 1000, true}, 1);
    driver_kick(&n->d, RX); /* not enough: none is used */
    assert_int_equal(driver_used_count(&n->d, RX), 0);
    /* The next entry is the one that we want to hear of. */
    assert_int_equal(driver_avail_event(&n->d, RX), 2);
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS + 0x2000, 1000, true}, 1);
    clear_dirty(n->f);
    driver_kick(&n->d, RX);
    assert_int_equal(driver_used_count(&n->d, RX), 3);
    assert_int_equal(((struct virtio_net_hdr_v1 *)guest_ram(n->f, DRIVER_BUFFERS))->num_buffers, 3);
    for (unsigned i = 0; i < 3; i++) {
        e = driver_used(&n->d, RX);
        assert_int_equal(e.id, i);
        assert_int_equal(e.len, i < 2 ? 1000 : 500);
        assert_frame(n, DRIVER_BUFFERS + i * 0x1000, i * 1000, e.len);
        assert_true(is_dirty(n->f, DRIVER_BUFFERS + i * 0x1000));
    }
    assert_int_equal(n->f->msi_count, 1);
}

static void test_receive_single(void **state)
{
    struct nic *n = *state;

    driver_start(&n->d, BASIC);
    driver_add(&n->d, RX, (struct buffer[]){{DRIVER_BUFFERS, 12, true}, {DRIVER_BUFFERS + 0x1000, 500, true}},
               2);
    put_frame(n, 600); /* too large for it: dropped */
    put_frame(n, 500);
    driver_kick(&n->d, RX);
    assert_int_equal(driver_used_count(&n->d, RX), 1);
    assert_int_equal(driver_used(&n->d, RX).len, 500);
    assert_frame(n, DRIVER_BUFFERS + 0x1000, 12, 488);
    assert_int_equal(((struct virtio_net_hdr_v1 *)guest_ram(n->f, DRIVER_BUFFERS))->num_buffers, 1);
}

static void test_receive_by_polling(void **state)
{
    struct nic *n = *state;

    assert_true(loop_start(n->f->host.loop, NULL));
    put_frame(n, 100);
    driver_start(&n->d, BASIC | MERGED);
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS, 1000, true}, 1);
    driver_kick(&n->d, RX);
    eventually(driver_used_count(&n->d, RX) == 1);
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS, 1000, true}, 1);
    put_frame(n, 200);
    eventually(driver_used_count(&n->d, RX) == 2);
    /* Not while the guest does not let the device reach its memory. */
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS, 1000, true}, 1);
    config_write(n->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    put_frame(n, 200);
    for (int i = 0; i < 20; i++)
        settle();
    assert_int_equal(driver_used_count(&n->d, RX), 2);
    config_write(n->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    eventually(driver_used_count(&n->d, RX) == 3);
}

/* A guest whose whole ring cannot hold the frame loses that frame, not the next. */
static void test_receive_too_large(void **state)
{
    struct nic *n = *state;

    driver_start(&n->d, BASIC | MERGED);
    for (unsigned i = 0; i < DRIVER_SIZE; i++)
        driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS + i * 100, 100, true}, 1);
    put_frame(n, 2000);
    put_frame(n, 100);
    driver_kick(&n->d, RX);
    assert_int_equal(driver_used_count(&n->d, RX), 1);
    assert_int_equal(driver_used(&n->d, RX).len, 100);
    assert_int_equal(driver_status(&n->d), ALL_OK);
}

static uint8_t control(struct nic *n, uint8_t class, uint8_t cmd)
{
    uint8_t *p = guest_ram(n->f, DRIVER_BUFFERS);

    p[0] = class;
    p[1] = cmd;
    p[2] = 0x55;
    driver_add(&n->d, CONTROL, (struct buffer[]){{DRIVER_BUFFERS, 2, false}, {DRIVER_BUFFERS + 2, 1, true}},
               2);
    driver_kick(&n->d, CONTROL);
    assert_int_equal(driver_used(&n->d, CONTROL).len, 1);
    return p[2];
}

static void test_announce(void **state)
{
    struct nic *n = *state;
    uint8_t generation;

    driver_start(&n->d, BASIC | ANNOUNCE);
    generation = common_read(&n->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    n->device->class->announce(n->device);
    assert_int_equal(n->cable.sent, 1);
    assert_int_equal(n->cable.last_size, NET_VNET_HDR_SIZE + 60);
    assert_memory_equal(n->cable.last + NET_VNET_HDR_SIZE,
                        "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x01\x02\x03\x80\x35", 14);
    assert_int_equal(n->f->msi_count, 1);
    assert_int_equal(n->f->msis[0].data, 0x40);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.isr, 1), 2);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.config + 6, 2),
                     VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(common_read(&n->d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), (uint8_t)(generation + 1));
    assert_int_equal(control(n, VIRTIO_NET_CTRL_MAC, 0), VIRTIO_NET_ERR);
    assert_int_equal(control(n, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK), VIRTIO_NET_OK);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.config + 6, 2), VIRTIO_NET_S_LINK_UP);
}

/* A driver that lies is stopped and told; after a reset it may try again. */
static void test_needs_reset(void **state)
{
    struct nic *n = *state;

    driver_start(&n->d, BASIC);
    driver_add(&n->d, TX, &(struct buffer){FIXTURE_RAM, 100, false}, 1);
    driver_kick(&n->d, TX);
    assert_int_equal(driver_status(&n->d), ALL_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(n->f->msi_count, 1);
    assert_int_equal(n->f->msis[0].data, 0x40);
    driver_kick(&n->d, TX);
    driver_kick(&n->d, RX);
    driver_start(&n->d, BASIC);
    add_tx(n, 60, 3);
    driver_kick(&n->d, TX);
    assert_int_equal(n->cable.sent, 1);

    /* Too small for its header. */
    driver_start(&n->d, BASIC | MERGED);
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS, 11, true}, 1);
    put_frame(n, 100);
    driver_kick(&n->d, RX);
    assert_true(driver_status(&n->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    /* A queue outside RAM. */
    assert_true(driver_negotiate(&n->d, 1ull << VIRTIO_F_VERSION_1));
    common_write(&n->d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    common_write(&n->d, VIRTIO_PCI_COMMON_Q_USEDHI, 1, 4);
    common_write(&n->d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    assert_int_equal(common_read(&n->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    assert_true(driver_status(&n->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* Saved with frames waiting in both directions, loaded into a device that was reset, taken over. */
static void test_take_over(void **state)
{
    struct nic *n = *state;
    VMStream *saved, *again;

    driver_start(&n->d, BASIC | EVENTS | MERGED | ANNOUNCE);
    n->cable.full = true;
    add_tx(n, 60, 4);
    driver_kick(&n->d, TX);
    driver_add(&n->d, RX, &(struct buffer){DRIVER_BUFFERS + 0x4000, 1000, true}, 1);
    put_frame(n, 1100); /* kept, waits for a second buffer */
    driver_kick(&n->d, RX);
    n->device->class->announce(n->device);
    saved = state_save();

    n->device->class->reset(n->device);
    assert_int_equal(bus_read(n->f, IO_MEMORY, n->d.common, 4), 0xffffffff);
    n->cable.full = false;
    n->cable.sent = n->f->msi_count = 0;
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    /* Loading alone sends and signals nothing. */
    assert_int_equal(n->cable.sent, 0);
    assert_int_equal(n->f->msi_count, 0);
    n->cable.offload = 0;
    n->device->class->take_over(n->device);
    assert_int_equal(n->cable.sent, 1);
    assert_int_equal(n->cable.last_size, NET_VNET_HDR_SIZE + 60);
    assert_true(n->cable.offload & MERGED);
    assert_int_equal(driver_used_count(&n->d, TX), 1);
    assert_int_equal(driver_used_count(&n->d, RX), 0);
    /* Every vector: 4, and one more for what was sent. */
    assert_int_equal(n->f->msi_count, 5);
    assert_true(bus_read(n->f, IO_MEMORY, n->d.config + 6, 2) & VIRTIO_NET_S_ANNOUNCE);
    put_frame(n, 100);
    driver_kick(&n->d, RX);
    assert_int_equal(driver_used_count(&n->d, RX), 1);
    perdure_stream_close(saved);
    perdure_stream_close(again);
}

static void test_bars_move(void **state)
{
    struct nic *n = *state;
    VMStream *saved;

    driver_start(&n->d, BASIC);
    assert_int_equal(n->f->doorbell_count, 3);
    config_write(n->f, SLOT, PCI_BASE_ADDRESS_0, 0xd0000000, 4);
    assert_int_equal(n->f->doorbell_count, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(n->f->doorbells[i].gpa >= 0xd0000000);
    saved = state_save();
    config_write(n->f, SLOT, PCI_COMMAND, 0, 2);
    assert_int_equal(n->f->doorbell_count, 0);
    state_load_ok(saved);
    assert_int_equal(n->f->doorbell_count, 3);
    assert_int_equal(bus_read(n->f, IO_MEMORY, 0xd0000000 + VIRTIO_PCI_COMMON_STATUS, 1), ALL_OK);
    perdure_stream_close(saved);
}

/* The way that needs no BAR. */
static void test_configuration_access(void **state)
{
    struct nic *n = *state;
    unsigned at = config_read(n->f, SLOT, PCI_CAPABILITY_LIST, 1);

    while (config_read(n->f, SLOT, at, 1) != PCI_CAP_ID_VNDR ||
           config_read(n->f, SLOT, at + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG)
        at = config_read(n->f, SLOT, at + 1, 1);
    config_write(n->f, SLOT, at + 4, 0, 1);
    config_write(n->f, SLOT, at + 8, VIRTIO_PCI_COMMON_STATUS, 4);
    config_write(n->f, SLOT, at + 12, 1, 4);
    config_write(n->f, SLOT, at + 16, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
    assert_int_equal(driver_status(&n->d), VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_int_equal(config_read(n->f, SLOT, at + 16, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
    /* Out of the BAR, and of a width that is none. */
    config_write(n->f, SLOT, at + 8, 0xfffffffc, 4);
    config_write(n->f, SLOT, at + 12, 4, 4);
    config_read(n->f, SLOT, at + 16, 4);
    config_write(n->f, SLOT, at + 12, 0xffffffff, 4);
    config_write(n->f, SLOT, at + 16, 0xffffffff, 4);
}

/* Every register, noise in the rings, frames from outside, states saved in the middle: no crash, nothing
 * outside RAM. */
static void test_fuzz(void **state)
{
    struct nic *n = *state;
    uint8_t *ram = guest_memory_map(n->f->host.memory, 0, FIXTURE_RAM);

    srand(6);
    for (unsigned i = 0; i < 20000; i++) {
        if (i % 50 == 0) {
            n->device->class->reset(n->device);
            driver_find(&n->d, n->f, SLOT);
            driver_start(&n->d, rand() & 1 ? driver_offered(&n->d) : BASIC);
        }
        for (unsigned k = 0; k < 8; k++) {
            uint32_t at = DRIVER_QUEUE_GPA(rand() % 3) + 0x1000 * (rand() % 4) + rand() % 0x110;

            ram[at] = rand() % 4 ? rand() % 8 : rand();
        }
        n->d.queue[rand() % 3].avail->idx += rand() % 3;
        driver_kick(&n->d, rand() % 4);
        switch (rand() % 32) {
        case 0:
            common_write(&n->d, rand() % 60, rand() % 4 ? rand() % 16 : rand(), 1 << rand() % 4);
            break;
        case 1:
            config_write(n->f, SLOT, rand() % 256, rand(), 1 << rand() % 3);
            break;
        case 2:
            bus_read(n->f, IO_MEMORY, n->d.common + rand() % 0x4000, 1 << rand() % 4);
            break;
        case 3:
            bus_write(n->f, IO_MEMORY, n->d.msix + rand() % 0x1000, rand(), 1 << rand() % 4);
            break;
        case 4:
            put_frame(n, 13 + rand() % 3000);
            driver_kick(&n->d, RX);
            while (read(n->cable.pipe[0], &(char[4096]){0}, 4096) > 0)
                ;
            break;
        case 5: {
            VMStream *s = state_save(), *again;

            state_load_ok(s);
            again = state_save();
            assert_same_state(s, again);
            n->device->class->take_over(n->device);
            perdure_stream_close(s);
            perdure_stream_close(again);
            break;
        }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_negotiation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_doorbell, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transmit_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_merged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_by_polling, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_announce, setup, teardown),
        cmocka_unit_test_setup_teardown(test_needs_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_take_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bars_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configuration_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fuzz, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI configuration space, BARs and MSI-X, with a device that does nothing else.
 */
#include "device_fixture.h"

#include "device/msix.h"

#define SLOT     3
#define BAR_SIZE 0x1000u
#define VECTORS  4

struct card {
    struct fixture *f;
    Device *bridge;
    struct pci_device pci;
    struct msix msix;
    uint64_t last_write;
};

static uint64_t card_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)size;
    return offset;
}

static void card_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    ((struct card *)opaque)->last_write = offset << 32 | value;
}

static const struct io_ops card_ops = {card_read, card_write};

static void card_config_written(struct pci_device *d, unsigned offset, unsigned size)
{
    msix_config_written(&((struct card *)d->opaque)->msix, offset, size);
}

static bool card_post_load(void *opaque, int version, Error **errp)
{
    struct card *c = opaque;

    (void)version;
    msix_post_load(&c->msix);
    return pci_post_load(&c->pci, errp);
}

static const VMStateField card_fields[] = {
    VMSTATE_STRUCT(struct card, pci, &pci_vmstate, 1),
    VMSTATE_STRUCT(struct card, msix, &msix_vmstate, 1),
    VMSTATE_END,
};
static const VMStateDescription card_vmstate = {
    .name = "card", .version = 1, .minimum_version = 1, .fields = card_fields, .post_load = card_post_load};

static int setup(void **state)
{
    struct card *c = calloc(1, sizeof(*c));

    c->f = fixture_new();
    c->bridge = pci_host_new(&c->f->host, NULL);
    assert_non_null(c->bridge);
    c->pci = (struct pci_device){
        .id = "card", .host = &c->f->host, .slot = SLOT, .opaque = c, .config_written = card_config_written};
    pci_init(&c->pci, 0x1234, 0x5678, 0xff000000);
    pci_add_bar(&c->pci, 0, BAR_SIZE, &card_ops, c);
    msix_init(&c->msix, &c->pci, 1, VECTORS);
    assert_true(pci_attach(&c->pci, NULL));
    assert_true(perdure_vmstate_register(&card_vmstate, 0, c, NULL));
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct card *c = *state;

    perdure_vmstate_unregister(&card_vmstate, c);
    pci_detach(&c->pci);
    device_destroy(c->bridge);
    fixture_free(c->f);
    free(c);
    return 0;
}

static void test_enumerate(void **state)
{
    struct card *c = *state;
    unsigned found = 0;

    for (unsigned slot = 0; slot < 32; slot++)
        found += config_read(c->f, slot, PCI_VENDOR_ID, 2) != 0xffff;
    assert_int_equal(found, 2);
    assert_int_equal(config_read(c->f, SLOT, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(config_read(c->f, 0, PCI_CLASS_REVISION + 2, 2), 0x0600);
    /* Other functions and other buses are empty. */
    bus_write(c->f, IO_PORT, 0xcf8, 0x80000000u | SLOT << 11 | 1 << 8, 4);
    assert_int_equal(bus_read(c->f, IO_PORT, 0xcfc, 4), 0xffffffff);
    bus_write(c->f, IO_PORT, 0xcf8, 0x80010000u | SLOT << 11, 4);
    assert_int_equal(bus_read(c->f, IO_PORT, 0xcfc, 4), 0xffffffff);
    bus_write(c->f, IO_PORT, 0xcf8, SLOT << 11, 4);
    assert_int_equal(bus_read(c->f, IO_PORT, 0xcfc, 4), 0xffffffff);
    /* Read-only is read-only; a second device on the slot is refused. */
    config_write(c->f, SLOT, PCI_VENDOR_ID, 0, 4);
    assert_int_equal(config_read(c->f, SLOT, PCI_VENDOR_ID, 2), 0x1234);
    assert_false(pci_attach(&c->pci, NULL));
}

static uint64_t probe(struct card *c, uint64_t address)
{
    return bus_read(c->f, IO_MEMORY, address, 4);
}

static void test_bars(void **state)
{
    struct card *c = *state;
    uint32_t assigned = config_read(c->f, SLOT, PCI_BASE_ADDRESS_0, 4);

    assert_true(assigned >= PCI_WINDOW_BASE && assigned % BAR_SIZE == 0);
    assert_int_equal(probe(c, assigned + 8), 0xffffffff);
    config_write(c->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(probe(c, assigned + 8), 8);

    /* The size, as everybody asks for it. */
    config_write(c->f, SLOT, PCI_BASE_ADDRESS_0, 0xffffffff, 4);
    assert_int_equal(config_read(c->f, SLOT, PCI_BASE_ADDRESS_0, 4), ~(BAR_SIZE - 1));
    config_write(c->f, SLOT, PCI_BASE_ADDRESS_0 + 8, 0xffffffff, 4);
    assert_int_equal(config_read(c->f, SLOT, PCI_BASE_ADDRESS_0 + 8, 4), 0);

    /* Moved, byte by byte. */
    for (unsigned i = 0; i < 4; i++)
        config_write(c->f, SLOT, PCI_BASE_ADDRESS_0 + i, 0xd0123000u >> (8 * i), 1);
    assert_int_equal(probe(c, assigned + 8), 0xffffffff);
    assert_int_equal(probe(c, 0xd0123010), 0x10);
    bus_write(c->f, IO_MEMORY, 0xd0123004, 7, 4);
    assert_int_equal(c->last_write, UINT64_C(4) << 32 | 7);

    config_write(c->f, SLOT, PCI_COMMAND, 0, 2);
    assert_int_equal(probe(c, 0xd0123010), 0xffffffff);
}

/* A BAR over RAM, over the interrupt controllers, at the end of the address space or over another BAR is not
 * decoded. */
static void test_hostile_bars(void **state)
{
    static const uint32_t places[] = {0, 0x1000, 0xbffff000, 0xfec00000, 0xfee00000, 0xfffff000};
    struct card *c = *state;
    uint32_t table = config_read(c->f, SLOT, PCI_BASE_ADDRESS_1, 4);
    unsigned before = c->f->region_count;

    config_write(c->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(c->f->region_count, before + 2);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        config_write(c->f, SLOT, PCI_BASE_ADDRESS_0, places[i], 4);
        assert_int_equal(c->f->region_count, before + 1);
    }
    config_write(c->f, SLOT, PCI_BASE_ADDRESS_0, table, 4);
    assert_int_equal(c->f->region_count, before + 1);
    config_write(c->f, SLOT, PCI_BASE_ADDRESS_0, 0xfebff000, 4);
    assert_int_equal(c->f->region_count, before + 2);
}

static void set_vector(struct card *c, unsigned vector, uint64_t address, uint32_t data, uint32_t control)
{
    uint32_t at = config_read(c->f, SLOT, PCI_BASE_ADDRESS_1, 4) + vector * 16;

    bus_write(c->f, IO_MEMORY, at, address, 8);
    bus_write(c->f, IO_MEMORY, at + 8, data, 4);
    bus_write(c->f, IO_MEMORY, at + 12, control, 4);
}

static unsigned msix_capability(struct card *c)
{
    unsigned at = config_read(c->f, SLOT, PCI_CAPABILITY_LIST, 1);

    while (at && config_read(c->f, SLOT, at, 1) != PCI_CAP_ID_MSIX)
        at = config_read(c->f, SLOT, at + 1, 1);
    assert_int_not_equal(at, 0);
    return at;
}

static void enable_msix(struct card *c, uint16_t flags)
{
    config_write(c->f, SLOT, msix_capability(c) + PCI_MSIX_FLAGS, flags, 2);
}

static uint64_t pending_bits(struct card *c)
{
    return bus_read(c->f, IO_MEMORY, config_read(c->f, SLOT, PCI_BASE_ADDRESS_1, 4) + MSIX_PBA_OFFSET, 8);
}

static void test_msix(void **state)
{
    struct card *c = *state;

    config_write(c->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(config_read(c->f, SLOT, msix_capability(c) + PCI_MSIX_FLAGS, 2), VECTORS - 1);
    set_vector(c, 1, 0xfee01000, 0x41, 0);
    msix_notify(&c->msix, 1); /* not enabled: nothing, and nothing remembered */
    enable_msix(c, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(c->f->msi_count, 0);
    msix_notify(&c->msix, 1);
    assert_int_equal(c->f->msi_count, 1);
    assert_int_equal(c->f->msis[0].address, 0xfee01000);
    assert_int_equal(c->f->msis[0].data, 0x41);
    msix_notify(&c->msix, VECTORS);
    msix_notify(&c->msix, 0xffff);
    assert_int_equal(c->f->msi_count, 1);
}

static void test_msix_masks(void **state)
{
    struct card *c = *state;

    config_write(c->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    enable_msix(c, PCI_MSIX_FLAGS_ENABLE);
    /* After a reset every vector is masked. */
    msix_notify(&c->msix, 2);
    msix_notify(&c->msix, 2);
    assert_int_equal(c->f->msi_count, 0);
    assert_int_equal(pending_bits(c), 1 << 2);
    set_vector(c, 2, 0xfee00000, 0x42, 0);
    assert_int_equal(c->f->msi_count, 1);
    assert_int_equal(pending_bits(c), 0);

    enable_msix(c, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    msix_notify(&c->msix, 2);
    msix_notify(&c->msix, 3);
    assert_int_equal(c->f->msi_count, 1);
    assert_int_equal(pending_bits(c), 3 << 2);
    enable_msix(c, PCI_MSIX_FLAGS_ENABLE); /* 3 is still masked by itself */
    assert_int_equal(c->f->msi_count, 2);
    assert_int_equal(c->f->msis[1].data, 0x42);
    assert_int_equal(pending_bits(c), 1 << 3);
    /* The pending bits are not the guest's to write. */
    bus_write(c->f, IO_MEMORY, config_read(c->f, SLOT, PCI_BASE_ADDRESS_1, 4) + MSIX_PBA_OFFSET, 0, 8);
    assert_int_equal(pending_bits(c), 1 << 3);
}

static void test_state(void **state)
{
    struct card *c = *state;
    VMStream *saved, *again;

    config_write(c->f, SLOT, PCI_BASE_ADDRESS_0, 0xd0000000, 4);
    config_write(c->f, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    enable_msix(c, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    set_vector(c, 0, 0x123fee00000, 0x40, 0);
    msix_notify(&c->msix, 0);
    saved = state_save();
    pci_reset(&c->pci);
    msix_reset(&c->msix);
    assert_int_equal(probe(c, 0xd0000004), 0xffffffff);
    state_load_ok(saved);
    again = state_save();
    assert_same_state(saved, again);
    assert_int_equal(probe(c, 0xd0000004), 4);
    assert_int_equal(pending_bits(c), 1);
    enable_msix(c, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(c->f->msis[0].address, 0x123fee00000);

    /* The state of another device is refused, and leaves this one reset. */
    perdure_stream_close(again);
    c->pci.config[PCI_DEVICE_ID] ^= 1;
    again = state_save();
    c->pci.config[PCI_DEVICE_ID] ^= 1;
    assert_false(state_load(again, NULL));
    assert_int_equal(config_read(c->f, SLOT, PCI_DEVICE_ID, 2), 0x5678);
    perdure_stream_close(saved);
    perdure_stream_close(again);
}

static void test_noise(void **state)
{
    struct card *c = *state;

    srand(3);
    for (int i = 0; i < 100000; i++) {
        uint32_t bar = config_read(c->f, SLOT, rand() & 1 ? PCI_BASE_ADDRESS_0 : PCI_BASE_ADDRESS_1, 4);
        unsigned width = 1 << rand() % 3;

        switch (rand() % 4) {
        case 0:
            config_write(c->f, SLOT, rand() % 256,
                         rand() & 1 ? (uint32_t)rand() : 0xc0000000 + (rand() & 0x1ffff), width);
            break;
        case 1:
            config_read(c->f, SLOT, rand() % 256, width);
            break;
        case 2:
            bus_write(c->f, IO_MEMORY, bar + (rand() & 0xfff), rand(), 1 << rand() % 4);
            break;
        case 3:
            bus_read(c->f, IO_MEMORY, bar + (rand() & 0xfff), 1 << rand() % 4);
            break;
        }
        if (rand() % 8 == 0)
            msix_notify(&c->msix, rand() % 6);
    }
    bus_write(c->f, IO_PORT, 0xcf8, 0x80000000u | SLOT << 11 | 0xfc, 4);
    bus_write(c->f, IO_PORT, 0xcff, UINT32_MAX, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_enumerate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_bars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msix_masks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };

    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}

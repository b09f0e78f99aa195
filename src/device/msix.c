/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/msix.h"

#include <assert.h>
#include <string.h>

#include "base/endian.h"

enum { ADDRESS_LOW, ADDRESS_HIGH, DATA, CONTROL, ENTRY_WORDS };

static uint16_t flags(const struct msix *m)
{
    return le16_get(m->pci->config + m->capability + PCI_MSIX_FLAGS);
}

static bool is_masked(const struct msix *m, unsigned vector)
{
    return (flags(m) & PCI_MSIX_FLAGS_MASKALL) ||
           (m->table[vector * ENTRY_WORDS + CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void send(struct msix *m, unsigned vector)
{
    const uint32_t *e = &m->table[vector * ENTRY_WORDS];

    m->pci->host->send_msi(m->pci->host, (uint64_t)e[ADDRESS_HIGH] << 32 | e[ADDRESS_LOW], e[DATA]);
}

void msix_notify(struct msix *m, unsigned vector)
{
    if (vector >= m->vectors || !(flags(m) & PCI_MSIX_FLAGS_ENABLE))
        return;
    if (is_masked(m, vector))
        m->pending |= UINT64_C(1) << vector;
    else
        send(m, vector);
}

static void send_pending(struct msix *m)
{
    if (!(flags(m) & PCI_MSIX_FLAGS_ENABLE))
        return;
    for (unsigned v = 0; v < m->vectors; v++) {
        if ((m->pending & UINT64_C(1) << v) && !is_masked(m, v)) {
            m->pending &= ~(UINT64_C(1) << v);
            send(m, v);
        }
    }
}

void msix_config_written(struct msix *m, unsigned offset, unsigned size)
{
    if (offset < m->capability + PCI_CAP_MSIX_SIZEOF && offset + size > m->capability)
        send_pending(m);
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct msix *m = opaque;
    uint64_t v = 0;

    if (offset % size)
        return UINT64_MAX;
    if (offset < m->vectors * ENTRY_WORDS * 4)
        memcpy(&v, (uint8_t *)m->table + offset, size);
    else if (offset >= MSIX_PBA_OFFSET && offset < MSIX_PBA_OFFSET + sizeof(m->pending))
        memcpy(&v, (uint8_t *)&m->pending + (offset - MSIX_PBA_OFFSET), size);
    return v;
}

static void write_word(struct msix *m, unsigned word, uint32_t value)
{
    m->table[word] = word % ENTRY_WORDS == CONTROL ? value & PCI_MSIX_ENTRY_CTRL_MASKBIT : value;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct msix *m = opaque;

    /* The specification knows only whole words; the pending bits are read-only. */
    if (offset % size || size < 4 || offset >= m->vectors * ENTRY_WORDS * 4)
        return;
    write_word(m, offset / 4, value);
    if (size == 8)
        write_word(m, offset / 4 + 1, value >> 32);
    send_pending(m);
}

static const struct io_ops msix_ops = {.read = msix_read, .write = msix_write};

void msix_reset(struct msix *m)
{
    memset(m->table, 0, sizeof(m->table));
    for (unsigned v = 0; v < m->vectors; v++)
        m->table[v * ENTRY_WORDS + CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
    m->pending = 0;
}

void msix_init(struct msix *m, struct pci_device *pci, unsigned bar, unsigned vectors)
{
    uint8_t *cap;

    assert(vectors >= 1 && vectors <= MSIX_VECTORS_MAX);
    m->pci = pci;
    m->vectors = vectors;
    pci_add_bar(pci, bar, MSIX_BAR_SIZE, &msix_ops, m);
    m->capability = pci_add_capability(pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    cap = pci->initial + m->capability;
    le16_put(cap + PCI_MSIX_FLAGS, vectors - 1);
    le32_put(cap + PCI_MSIX_TABLE, bar);
    le32_put(cap + PCI_MSIX_PBA, bar | MSIX_PBA_OFFSET);
    memcpy(pci->config + m->capability, cap, PCI_CAP_MSIX_SIZEOF);
    pci_make_writable(pci, m->capability + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    msix_reset(m);
}

/* Any table is a possible one; only bits that cannot be are dropped. */
void msix_post_load(struct msix *m)
{
    for (unsigned v = 0; v < MSIX_VECTORS_MAX; v++)
        m->table[v * ENTRY_WORDS + CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
    m->pending &= (UINT64_C(1) << m->vectors) - 1;
}

static const VMStateField msix_fields[] = {
    VMSTATE_U32_ARRAY(struct msix, table, MSIX_VECTORS_MAX * 4, 1),
    VMSTATE_U64(struct msix, pending, 1),
    VMSTATE_END,
};
const VMStateDescription msix_vmstate = {
    .name = "msix", .version = 1, .minimum_version = 1, .fields = msix_fields};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What devices may ask of the machine: struct device_host. */
#include "machine/machine_internal.h"

#define PAGE_OF_IOAPIC 0xfec00000u
#define PAGE_OF_LAPIC  0xfee00000u
#define KVM_SCRATCH    0xfeffc000u /* identity map and TSS of kvm.c */

static Machine *machine_of_host(struct device_host *h)
{
    return h->opaque;
}

static void host_set_irq(struct device_host *h, unsigned gsi, bool level)
{
    irqchip_set_line(&machine_of_host(h)->irqchip, gsi, level);
}

static void host_send_msi(struct device_host *h, uint64_t address, uint32_t data)
{
    irqchip_send_msi(&machine_of_host(h)->irqchip, address, data);
}

static bool host_map(struct device_host *h, enum io_space space, uint64_t base, uint64_t size,
                     const struct io_ops *ops, void *opaque, Error **errp)
{
    return bus_map(&machine_of_host(h)->bus, space, base, size, ops, opaque, errp);
}

static void host_unmap(struct device_host *h, enum io_space space, uint64_t base)
{
    bus_unmap(&machine_of_host(h)->bus, space, base);
}

/* Length 0: KVM does not even decode what is written. */
static struct kvm_ioeventfd doorbell(uint64_t gpa, int fd, uint32_t flags)
{
    return (struct kvm_ioeventfd){.addr = gpa, .len = 0, .fd = fd, .flags = flags};
}

static bool host_map_doorbell(struct device_host *h, uint64_t gpa, int fd, Error **errp)
{
    struct kvm_ioeventfd bell = doorbell(gpa, fd, 0);

    return kvm_call(machine_of_host(h)->kvm.vm, KVM_IOEVENTFD, &bell, "KVM_IOEVENTFD", errp);
}

static void host_unmap_doorbell(struct device_host *h, uint64_t gpa, int fd)
{
    struct kvm_ioeventfd bell = doorbell(gpa, fd, KVM_IOEVENTFD_FLAG_DEASSIGN);

    kvm_ioctl(machine_of_host(h)->kvm.vm, KVM_IOEVENTFD, &bell);
}

static void host_request(struct device_host *h, enum guest_request what)
{
    machine_request(machine_of_host(h), what);
}

void machine_host_init(Machine *m)
{
    m->host = (struct device_host){
        .memory = m->guest.memory,
        .loop = m->loop,
        .opaque = m,
        .set_irq = host_set_irq,
        .send_msi = host_send_msi,
        .map = host_map,
        .unmap = host_unmap,
        .map_doorbell = host_map_doorbell,
        .unmap_doorbell = host_unmap_doorbell,
        .request = host_request,
    };
}

static bool take(Machine *m, enum io_space space, uint64_t base, uint64_t size, Error **errp)
{
    return bus_map(&m->bus, space, base, size, NULL, NULL, errp);
}

bool machine_host_map_fixed(Machine *m, Error **errp)
{
    static const struct {
        uint16_t base, size;
    } ports[] = {{0x20, 2}, {0x40, 4}, {0x61, 1}, {0xa0, 2}, {0x4d0, 2}}; /* PICs, PIT, speaker, edge/level */

    for (int i = 0; i < m->guest.memory->block_count; i++)
        if (!take(m, IO_MEMORY, m->guest.memory->blocks[i].gpa, m->guest.memory->blocks[i].size, errp))
            return false;
    for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
        if (!take(m, IO_PORT, ports[i].base, ports[i].size, errp))
            return false;
    return take(m, IO_MEMORY, PAGE_OF_IOAPIC, 0x1000, errp) &&
           take(m, IO_MEMORY, PAGE_OF_LAPIC, 0x1000, errp) && take(m, IO_MEMORY, KVM_SCRATCH, 0x4000, errp);
}

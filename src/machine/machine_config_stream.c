/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration's records. Readers trust nothing: every count and size is checked before it is used. */
#include "machine/machine_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT     3 /* 1 ended after the NICs, 2 knew no shared disks */
#define READ_PIECE (256u * 1024)
#define SLOTS      32u

static void save_cpuid(const struct cpuid *c, VMStream *f)
{
    perdure_stream_put_u32(f, c->count);
    for (uint32_t i = 0; i < c->count; i++) {
        const struct kvm_cpuid_entry2 *e = &c->entries[i];

        perdure_stream_put_u32(f, e->function);
        perdure_stream_put_u32(f, e->index);
        perdure_stream_put_u32(f, e->flags);
        perdure_stream_put_u32(f, e->eax);
        perdure_stream_put_u32(f, e->ebx);
        perdure_stream_put_u32(f, e->ecx);
        perdure_stream_put_u32(f, e->edx);
    }
}

/* How a disk is used. */
enum { DISK_WRITABLE, DISK_READONLY, DISK_SHARED, DISK_USES };

static void save_channels(const struct machine_setup *s, VMStream *f)
{
    const struct machine_config *c = &s->config;

    perdure_stream_put_u32(f, s->console_slot);
    perdure_stream_put_u32(f, (uint32_t)c->channel_count);
    for (int i = 0; i < c->channel_count; i++) {
        perdure_stream_put_string(f, c->channels[i].id);
        perdure_stream_put_string(f, c->channels[i].name);
        perdure_stream_put_u8(f, c->channels[i].console);
    }
}

static void save_devices(const struct machine_setup *s, VMStream *f)
{
    const struct machine_config *c = &s->config;

    perdure_stream_put_u32(f, (uint32_t)c->disk_count);
    for (int i = 0; i < c->disk_count; i++) {
        perdure_stream_put_string(f, c->disks[i].id);
        perdure_stream_put_u32(f, s->disk_slot[i]);
        perdure_stream_put_u8(f, c->disks[i].readonly ? DISK_READONLY
                                 : c->disks[i].shared ? DISK_SHARED
                                                      : DISK_WRITABLE);
        perdure_stream_put_u64(f, s->disk_size[i]);
    }
    perdure_stream_put_u32(f, (uint32_t)c->net_count);
    for (int i = 0; i < c->net_count; i++) {
        perdure_stream_put_string(f, c->nets[i].id);
        perdure_stream_put_u32(f, s->net_slot[i]);
        perdure_stream_put_buffer(f, c->nets[i].mac, sizeof(c->nets[i].mac));
    }
    perdure_stream_put_u32(f, s->rng_slot);
    save_channels(s, f);
}

static void save_blob(VMStream *f, uint16_t type, const void *data, size_t size)
{
    perdure_stream_begin(f, type, 0);
    perdure_stream_put_u64(f, size);
    perdure_stream_put_buffer(f, data, size);
    perdure_stream_end(f);
}

void machine_setup_save(const struct machine_setup *s, VMStream *f)
{
    const struct machine_config *c = &s->config;

    perdure_stream_begin(f, MACHINE_RECORD_CONFIG, 0);
    perdure_stream_put_u16(f, FORMAT);
    perdure_stream_put_string(f, c->name);
    perdure_stream_put_u32(f, (uint32_t)c->cpus);
    perdure_stream_put_u64(f, c->memory);
    perdure_stream_put_string(f, c->cpu_model);
    perdure_stream_put_u32(f, s->tsc_khz);
    perdure_stream_put_string(f, c->cmdline);
    save_cpuid(&s->cpuid, f);
    save_devices(s, f);
    perdure_stream_end(f);
    save_blob(f, MACHINE_RECORD_KERNEL, c->kernel, c->kernel_size);
    if (c->initrd_size)
        save_blob(f, MACHINE_RECORD_INITRD, c->initrd, c->initrd_size);
    perdure_stream_begin(f, MACHINE_RECORD_END, 0);
    perdure_stream_end(f);
}

/* The stream keeps its first error: what comes after it is zeroes. */
static uint32_t load_count(VMStream *f, uint32_t most, const char *what)
{
    uint32_t n = perdure_stream_get_u32(f);

    if (n <= most)
        return n;
    perdure_stream_set_error(f, -EINVAL, "configuration: %u %s, at most %u", n, what, most);
    return 0;
}

static void load_cpuid(struct cpuid *c, VMStream *f)
{
    c->count = load_count(f, CPUID_ENTRIES_MAX, "CPUID entries");
    for (uint32_t i = 0; i < c->count; i++) {
        struct kvm_cpuid_entry2 *e = &c->entries[i];

        e->function = perdure_stream_get_u32(f);
        e->index = perdure_stream_get_u32(f);
        e->flags = perdure_stream_get_u32(f);
        e->eax = perdure_stream_get_u32(f);
        e->ebx = perdure_stream_get_u32(f);
        e->ecx = perdure_stream_get_u32(f);
        e->edx = perdure_stream_get_u32(f);
    }
}

static unsigned load_slot(VMStream *f, uint32_t *used, bool optional)
{
    uint32_t slot = perdure_stream_get_u32(f);

    if (perdure_stream_error(f, NULL) || (optional && slot == 0))
        return 0;
    if (slot == 0 || slot >= SLOTS || *used >> slot & 1)
        perdure_stream_set_error(f, -EINVAL, "configuration: PCI slot %u", slot);
    else
        *used |= 1u << slot;
    return slot;
}

static void load_channels(struct machine_setup *s, VMStream *f, uint32_t *used)
{
    struct machine_config *c = &s->config;

    s->console_slot = load_slot(f, used, true);
    c->channel_count = (int)load_count(f, MACHINE_CHANNELS_MAX, "channels");
    for (int i = 0; i < c->channel_count; i++) {
        perdure_stream_get_string(f, c->channels[i].id, sizeof(c->channels[i].id));
        perdure_stream_get_string(f, c->channels[i].name, sizeof(c->channels[i].name));
        c->channels[i].console = perdure_stream_get_u8(f) != 0;
    }
    if (!s->console_slot != !c->channel_count)
        perdure_stream_set_error(f, -EINVAL, "configuration: %d channels on PCI slot %u", c->channel_count,
                                 s->console_slot);
}

static void load_disk_use(struct machine_disk *d, VMStream *f, uint16_t format)
{
    uint8_t use = perdure_stream_get_u8(f);

    if (use >= (format < 3 ? DISK_SHARED : DISK_USES))
        perdure_stream_set_error(f, -EINVAL, "configuration: disk %s is used in way %u", d->id, use);
    d->readonly = use == DISK_READONLY;
    d->shared = use == DISK_SHARED;
}

static void load_devices(struct machine_setup *s, VMStream *f, uint16_t format)
{
    struct machine_config *c = &s->config;
    uint32_t used = 0;

    c->disk_count = (int)load_count(f, MACHINE_DISKS_MAX, "disks");
    for (int i = 0; i < c->disk_count; i++) {
        perdure_stream_get_string(f, c->disks[i].id, sizeof(c->disks[i].id));
        s->disk_slot[i] = load_slot(f, &used, false);
        load_disk_use(&c->disks[i], f, format);
        s->disk_size[i] = perdure_stream_get_u64(f);
    }
    c->net_count = (int)load_count(f, MACHINE_NETS_MAX, "NICs");
    for (int i = 0; i < c->net_count; i++) {
        perdure_stream_get_string(f, c->nets[i].id, sizeof(c->nets[i].id));
        s->net_slot[i] = load_slot(f, &used, false);
        perdure_stream_get_buffer(f, c->nets[i].mac, sizeof(c->nets[i].mac));
    }
    if (format < 2)
        return;
    s->rng_slot = load_slot(f, &used, true);
    load_channels(s, f, &used);
}

static void load_config(struct machine_setup *s, VMStream *f)
{
    struct machine_config *c = &s->config;
    uint16_t format = perdure_stream_get_u16(f);
    uint32_t cpus;

    if (!format || format > FORMAT)
        perdure_stream_set_error(f, -EINVAL, "configuration: the stream has format %u, this build knows %d",
                                 format, FORMAT);
    perdure_stream_get_string(f, c->name, sizeof(c->name));
    cpus = perdure_stream_get_u32(f);
    c->cpus = cpus <= MACHINE_CPUS_MAX ? (int)cpus : 0;
    c->memory = perdure_stream_get_u64(f);
    perdure_stream_get_string(f, c->cpu_model, sizeof(c->cpu_model));
    s->tsc_khz = perdure_stream_get_u32(f);
    perdure_stream_get_string(f, c->cmdline, sizeof(c->cmdline));
    load_cpuid(&s->cpuid, f);
    load_devices(s, f, format);
    perdure_stream_done(f);
}

/* Grows with what really comes: a size alone reserves nothing. */
static void load_blob(VMStream *f, uint64_t most, void **ret, size_t *ret_size, const char *what)
{
    uint64_t size = perdure_stream_get_u64(f);
    uint8_t *data = NULL, *grown;
    size_t have = 0, room = 0;

    if (!size || size > most || *ret) {
        perdure_stream_set_error(f, -EINVAL, "configuration: %s of %" PRIu64 " bytes", what, size);
        return;
    }
    while (have < size) {
        size_t piece = size - have < READ_PIECE ? (size_t)(size - have) : READ_PIECE;

        if (have + piece > room) {
            room = room * 2 > have + piece ? room * 2 : have + piece;
            if (room > size)
                room = (size_t)size;
            grown = realloc(data, room);
            if (!grown) {
                perdure_stream_set_error(f, -ENOMEM, "configuration: %s", what);
                break;
            }
            data = grown;
        }
        if (!perdure_stream_get_buffer(f, data + have, piece))
            break;
        have += piece;
    }
    perdure_stream_done(f);
    *ret = data;
    *ret_size = have;
}

bool machine_setup_load(struct machine_setup *ret, VMStream *f, Error **errp)
{
    struct machine_setup *s = calloc(1, sizeof(*s));
    bool seen = false, ended = false;
    uint16_t type;
    uint64_t id;

    if (!s) {
        error_setg_errno(errp, ENOMEM, "configuration");
        return false;
    }
    while (!ended && perdure_stream_next(f, &type, &id)) {
        if (type == MACHINE_RECORD_CONFIG && !seen) {
            load_config(s, f);
            seen = true;
        } else if (type == MACHINE_RECORD_KERNEL && seen) {
            load_blob(f, MACHINE_KERNEL_MAX, &s->config.kernel, &s->config.kernel_size, "a kernel");
        } else if (type == MACHINE_RECORD_INITRD && seen) {
            load_blob(f, MACHINE_INITRD_MAX, &s->config.initrd, &s->config.initrd_size, "an initrd");
        } else if (type == MACHINE_RECORD_END && s->config.kernel) {
            perdure_stream_done(f);
            ended = true;
        } else if (type & PERDURE_RECORD_OPTIONAL) {
            perdure_stream_skip(f);
        } else {
            perdure_stream_set_error(f, -EINVAL, "configuration: unexpected record 0x%x", type);
        }
    }
    if (!perdure_stream_error(f, errp) && ended) {
        *ret = *s;
        free(s);
        return true;
    }
    if (!perdure_stream_error(f, NULL))
        error_setg(errp, "configuration: the stream ends in the middle of it");
    machine_setup_free(s);
    free(s);
    return false;
}

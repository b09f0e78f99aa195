/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/state_match.h"
#include "base/log.h"
#include "machine/irqchip.h"
#include "machine/vcpu_state.h"

#include <stdlib.h>
#include <string.h>

#define MSR_TSC                0x10
#define MSR_SYSENTER_ESP       0x175
#define MSR_SYSENTER_EIP       0x176
#define MSR_TSC_DEADLINE       0x6e0
#define MSR_HYPERV_RUNTIME     0x40000010
#define MSR_HYPERV_REFERENCE   0x40000020
#define LAPIC_PPR              0xa0  /* made of the task's priority and what is in service */
#define LAPIC_IRR              0x200 /* eight registers, 16 bytes apart */
#define LAPIC_CURRENT_COUNT    0x390
#define PIT_PINS               0x5 /* GSI 0, and 2 where the IOAPIC has it */
#define IOAPIC_DELIVERY_STATUS (UINT64_C(1) << 12)

/* Reads a body through its field table into a zeroed struct of size bytes; NULL if it cannot be read. */
static void *decode(const VMStateDescription *d, const void *body, size_t body_size, size_t size)
{
    VMStateDescription fields_only = *d;
    VMStream *out = perdure_stream_open_memory(body_size + 64), *in = NULL;
    void *state = calloc(1, size), *result = NULL;
    const void *frames;
    size_t frames_size;
    uint16_t type;
    uint64_t id;

    fields_only.post_load = NULL;
    if (!out || !state)
        goto done;
    perdure_stream_begin(out, 1, 0);
    perdure_stream_put_buffer(out, body, body_size);
    perdure_stream_end(out);
    frames = perdure_stream_memory(out, &frames_size);
    in = perdure_stream_open_buffer(frames, frames_size);
    if (in && perdure_stream_next(in, &type, &id) &&
        perdure_vmstate_load(in, &fields_only, state, d->version, NULL)) {
        result = state;
        state = NULL;
    }
done:
    perdure_stream_close(in);
    perdure_stream_close(out);
    free(state);
    return result;
}

static void blank_vcpu(void *state)
{
    struct vcpu_state *s = state;
    uint32_t count = s->msrs.head.nmsrs < KVM_MSRS_MAX ? s->msrs.head.nmsrs : KVM_MSRS_MAX;

    for (uint32_t i = 0; i < count; i++) {
        switch (s->msrs.entries[i].index) {
        case MSR_TSC:
        case MSR_TSC_DEADLINE:
        case MSR_HYPERV_RUNTIME:
        case MSR_HYPERV_REFERENCE:
            s->msrs.entries[i].data = 0;
            break;
        case MSR_SYSENTER_ESP:
        case MSR_SYSENTER_EIP:
            /* KVM sets no more of it for an AMD guest, whose long mode has no SYSENTER. */
            s->msrs.entries[i].data = (uint32_t)s->msrs.entries[i].data;
        }
    }
    memset(s->lapic.regs + LAPIC_PPR, 0, 4);
    memset(s->lapic.regs + LAPIC_CURRENT_COUNT, 0, 4);
    memset(s->lapic.regs + LAPIC_IRR, 0, 8 * 16);
}

static void blank_irqchip(void *state)
{
    struct irqchip *c = state;

    c->pic[0].chip.pic.irr &= (uint8_t)~1;
    c->pic[0].chip.pic.last_irr &= (uint8_t)~1;
    c->ioapic.chip.ioapic.irr &= ~PIT_PINS;
    c->ioapic.chip.ioapic.redirtbl[0].bits &= ~IOAPIC_DELIVERY_STATUS;
    c->ioapic.chip.ioapic.redirtbl[2].bits &= ~IOAPIC_DELIVERY_STATUS;
}

static void blank_kvmclock(void *state)
{
    struct irqchip *c = state;

    c->clock = 0;
}

static const struct {
    const VMStateDescription *description;
    size_t size;
    void (*blank)(void *state); /* what goes on by itself */
} sections[] = {
    {&vcpu_vmstate, sizeof(struct vcpu_state), blank_vcpu},
    {&irqchip_vmstate, sizeof(struct irqchip), blank_irqchip},
    {&kvmclock_vmstate, sizeof(struct irqchip), blank_kvmclock},
};

/* For the person who has to find out why two hosts do not agree. */
static void tell_difference(const VMStateDescription *d, const uint8_t *sent, const uint8_t *loaded)
{
    for (const VMStateField *f = d->fields; f->type != VMSTATE_TYPE_END; f++) {
        for (size_t i = f->offset; i < f->offset + f->size * f->count; i++) {
            if (sent[i] == loaded[i])
                continue;
            log_warn("section %s: %s differs at byte %zu: sent %02x, after the load %02x", d->name, f->name,
                     i - f->offset, sent[i], loaded[i]);
            break;
        }
    }
}

bool state_match(const char *section, const void *sent, const void *loaded, size_t size)
{
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        void *a, *b;
        bool same;

        if (strcmp(sections[i].description->name, section))
            continue;
        a = decode(sections[i].description, sent, size, sections[i].size);
        b = decode(sections[i].description, loaded, size, sections[i].size);
        same = a && b;
        if (same) {
            sections[i].blank(a);
            sections[i].blank(b);
            same = !memcmp(a, b, sections[i].size);
            if (!same)
                tell_difference(sections[i].description, a, b);
        }
        free(a);
        free(b);
        return same;
    }
    return false;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_guest.h"
#include "sim_content.h"
#include "sim_guest_ram.h"
#include "sim_history.h"
#include "sim_missing.h"

#include "guest/ram_state.h"
#include "net/output_buffer.h"
#include <perdure/vmstate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_CONFIG     0x7001
#define OUTPUTS_OF_A_BOOT 40000 /* it is numbered on from far above */

struct SimGuest {
    Guest guest;
    SimHost *host;
    struct sim_cpu cpu;
    struct guest_ram ram;
    NetPort *net;
    ConsoleGate *console;
    struct guest_disks *disks;
    struct observer observer;
    struct task_mutex lock;
    struct task_cond cond;
    Task *task;
    bool powered;  /* the machine's run state */
    bool pausing;  /* the engine wants it to stand still */
    bool standing; /* and it does */
    bool quit;
    MissingPages *missing; /* NULL: it has all of its memory */
    struct {
        struct sim_cpu cpu;
        uint64_t lacks, sum; /* pages whose digest is not in the sum yet */
    } origin;                /* the state that it was taken over in, checked once all of it has come */
    enum guest_request wish;
    unsigned fail_in;
    char fail_text[80];
    bool fail_again, failed_once;
    void (*on_end)(void *opaque);
    void *on_end_opaque;
};

static const VMStateField frame_fields[] = {
    VMSTATE_U32(struct sim_frame, kind, 1),    VMSTATE_U32(struct sim_frame, client, 1),
    VMSTATE_U64(struct sim_frame, request, 1), VMSTATE_U64(struct sim_frame, chain, 1),
    VMSTATE_U64(struct sim_frame, number, 1),  VMSTATE_U64(struct sim_frame, step, 1),
    VMSTATE_U32(struct sim_frame, lineage, 1), VMSTATE_END,
};
static const VMStateDescription frame_vmstate = {
    .name = "sim-frame", .version = 1, .minimum_version = 1, .fields = frame_fields};
static const VMStateField cpu_fields[] = {
    VMSTATE_U64(struct sim_cpu, step, 1),
    VMSTATE_U64(struct sim_cpu, rng, 1),
    VMSTATE_U64(struct sim_cpu, frames, 1),
    VMSTATE_U64(struct sim_cpu, console, 1),
    VMSTATE_U64_ARRAY(struct sim_cpu, applied, WORLD_CLIENTS, 1),
    VMSTATE_U64_ARRAY(struct sim_cpu, chain, WORLD_CLIENTS, 1),
    VMSTATE_U64_ARRAY(struct sim_cpu, owed, WORLD_CLIENTS, 1),
    VMSTATE_U64(struct sim_cpu, resets, 1),
    VMSTATE_STRUCT(struct sim_cpu, disk, &sim_disk_vmstate, 1),
    VMSTATE_U32(struct sim_cpu, request, 1),
    VMSTATE_U32(struct sim_cpu, lineage, 1),
    VMSTATE_U32(struct sim_cpu, waiting, 1),
    VMSTATE_STRUCT(struct sim_cpu, tx, &frame_vmstate, 1),
    VMSTATE_END,
};
static const VMStateDescription cpu_vmstate = {
    .name = "sim-cpu", .version = 1, .minimum_version = 1, .fields = cpu_fields};

static int64_t step_ns = NS_PER_MS;
static uint64_t boots;

static SimGuest *of(Guest *g)
{
    return (SimGuest *)g;
}

static uint64_t digest(SimGuest *g)
{
    struct sim_cpu c = g->cpu;

    c.lineage = 0; /* a takeover gives it a new one */
    return sim_mix(guest_ram_digest(&g->ram) + sim_bytes_digest(&c, sizeof(c)));
}

/* --- what it does --- */

static void send_frame(SimGuest *g)
{
    struct iovec iov = {&g->cpu.tx, sizeof(g->cpu.tx)};

    g->cpu.waiting = net_send(g->net, &iov, 1) ? 0 : (uint32_t)sizeof(g->cpu.tx);
}

static void make_frame(SimGuest *g, enum frame_kind kind, uint32_t client, uint64_t request)
{
    g->cpu.tx = (struct sim_frame){.kind = kind, .client = client, .request = request, .step = g->cpu.step};
    g->cpu.tx.chain = client < WORLD_CLIENTS ? g->cpu.chain[client] : 0;
    g->cpu.tx.number = ++g->cpu.frames;
    g->cpu.tx.lineage = g->cpu.lineage;
    send_frame(g);
}

static void serve(SimGuest *g, const struct sim_frame *f)
{
    struct sim_cpu *c = &g->cpu;

    if (f->kind != FRAME_REQUEST || f->client >= WORLD_CLIENTS)
        return;
    if (f->request == c->applied[f->client] + 1) {
        c->chain[f->client] = world_chain(c->chain[f->client], f->client, f->request);
        c->applied[f->client]++;
        guest_ram_note(&g->ram, f->client, c->chain[f->client]);
        guest_disks_note(&c->disk, f->client);
    }
    if (f->request == c->applied[f->client])
        c->owed[f->client] = 1;
    else if (f->request > c->applied[f->client])
        make_frame(g, FRAME_GAP, f->client, c->applied[f->client] + 1);
}

/* What a client hears is safe. */
static bool answer(SimGuest *g)
{
    for (uint32_t i = 0; i < WORLD_CLIENTS; i++) {
        if (!g->cpu.owed[i] || !guest_disks_safe(&g->cpu.disk, i))
            continue;
        g->cpu.owed[i] = 0;
        make_frame(g, FRAME_ANSWER, i, g->cpu.applied[i]);
        return true;
    }
    return false;
}

static void speak(SimGuest *g)
{
    struct sim_console_record r = {g->cpu.console + 1, g->cpu.step, g->cpu.lineage, 0};

    if (console_gate_put(g->console, &r, sizeof(r)) == sizeof(r))
        g->cpu.console++;
}

/* Output that found no room is what a NIC leaves in its ring: it goes before everything else, and under a
 * takeover's new lineage. */
static void step(SimGuest *g)
{
    struct sim_rng rng = {g->cpu.rng};
    struct sim_frame f;

    g->cpu.step++;
    guest_ram_step(&g->ram, &rng, g->cpu.step);
    guest_disks_step(g->disks, &g->cpu.disk, &rng, g->cpu.lineage, g->cpu.applied, g->cpu.chain);
    if (g->cpu.waiting) {
        g->cpu.tx.lineage = g->cpu.lineage;
        g->cpu.tx.step = g->cpu.step;
        send_frame(g);
    } else if (answer(g)) {
        ; /* one frame a step */
    } else if (net_receive(g->net, &f, sizeof(f)) == sizeof(f)) {
        serve(g, &f);
    } else if (sim_rng_one_in(&rng, 20)) {
        make_frame(g, FRAME_BEACON, WORLD_CLIENTS, 0);
    }
    if (sim_rng_one_in(&rng, 15))
        speak(g);
    g->cpu.rng = rng.state;
}

static void reset(SimGuest *g)
{
    sim_trace("reset of lineage %u at step %llu", g->cpu.lineage, (unsigned long long)g->cpu.step);
    g->cpu.request = GUEST_REQUEST_NONE;
    g->cpu.resets++;
    g->cpu.step++;
    guest_ram_reset(&g->ram);
}

/* Lock held. */
static void ask(SimGuest *g)
{
    g->cpu.step++; /* the pause before it saw another state */
    g->cpu.request = g->wish;
    g->wish = GUEST_REQUEST_NONE;
    sim_trace("the guest asks: %u", g->cpu.request);
    if (g->guest.on_request)
        g->guest.on_request(g->guest.on_request_opaque);
    else if (g->cpu.request == GUEST_REQUEST_RESET)
        reset(g);
    else
        g->on_end(g->on_end_opaque);
}

bool sim_guest_runs(const SimGuest *g)
{
    return g->powered && !g->cpu.request;
}

bool sim_guest_lacks(const SimGuest *g)
{
    return g->missing && sim_missing_set(g->missing);
}

/* Lock held. Somebody has to wait for a page that the next step writes. */
static bool must_wait(SimGuest *g)
{
    uint64_t needs;

    if (!sim_guest_lacks(g))
        return false;
    needs = guest_ram_needs(&g->ram, (struct sim_rng){g->cpu.rng}) & sim_missing_set(g->missing);
    if (needs)
        sim_missing_touch(g->missing, (uint64_t)__builtin_ctzll(needs));
    return needs;
}

static void guest_main(void *arg)
{
    SimGuest *g = arg;
    int64_t next = clock_now();

    task_lock(&g->lock);
    while (!g->quit) {
        if (g->pausing && !g->standing) {
            g->standing = true;
            task_broadcast(&g->cond);
        }
        if (g->standing || !sim_guest_runs(g)) {
            task_wait(&g->cond, &g->lock);
        } else if (clock_now() < next) {
            task_wait_until(&g->cond, &g->lock, next);
        } else if (g->wish && !sim_guest_lacks(g)) {
            ask(g);
        } else if (must_wait(g)) {
            task_wait(&g->cond, &g->lock);
        } else {
            step(g);
            next = clock_now() + step_ns / 2 + (int64_t)(sim_mix(g->cpu.step) % (uint64_t)step_ns);
        }
    }
    task_unlock(&g->lock);
}

/* --- what the engine asks --- */

static bool fails(SimGuest *g, const char *what, Error **errp)
{
    if (!g->fail_in || --g->fail_in)
        return false;
    sim_trace("%s fails as planned", what);
    error_setg(errp, "%s%s", g->failed_once ? "later " : "", g->fail_text);
    g->fail_in = g->fail_again && !g->failed_once;
    g->failed_once = g->fail_in;
    return true;
}

static void note_pause(SimGuest *g)
{
    if (sim_guest_lacks(g)) /* nobody goes on from here */
        return;
    history_paused(g->cpu.lineage, g->cpu.step, digest(g));
    guest_disks_paused(g->disks, &g->cpu.disk, g->cpu.lineage, g->cpu.step);
}

static bool guest_pause(Guest *gg, Error **errp)
{
    SimGuest *g = of(gg);

    if (fails(g, "pause", errp))
        return false;
    task_lock(&g->lock);
    if (g->pausing)
        sim_fail("the guest is paused twice");
    g->pausing = true;
    task_broadcast(&g->cond);
    while (!g->standing)
        task_wait(&g->cond, &g->lock);
    if (g->powered)
        note_pause(g);
    task_unlock(&g->lock);
    return true;
}

static bool guest_finish_writes(Guest *gg, int64_t until)
{
    return guest_disks_settle(of(gg)->disks, until);
}

static void guest_resume(Guest *gg)
{
    SimGuest *g = of(gg);

    task_lock(&g->lock);
    if (!g->pausing && g->powered)
        sim_fail("the guest is resumed and was not paused");
    g->pausing = g->standing = false;
    task_broadcast(&g->cond);
    task_unlock(&g->lock);
}

static bool guest_tracking_start(Guest *gg, bool equal, Error **errp)
{
    SimGuest *g = of(gg);

    if (fails(g, "tracking_start", errp))
        return false;
    guest_ram_track(&g->ram, equal);
    return true;
}

static void guest_tracking_stop(Guest *gg)
{
    of(gg)->ram.tracking = false;
}

static bool guest_collect(Guest *gg, Staging *s, bool live, bool *ret_more, Error **errp)
{
    SimGuest *g = of(gg);

    if (!g->ram.tracking)
        sim_fail("collect without tracking");
    if (!live && g->powered && !g->standing)
        sim_fail("an exact collect while the guest runs");
    if (fails(g, "collect", errp))
        return false;
    *ret_more = guest_ram_collect(&g->ram, s);
    return true;
}

static bool guest_take_changed(Guest *gg, uint64_t *map, Error **errp)
{
    SimGuest *g = of(gg);

    if (!g->ram.tracking)
        sim_fail("changes are taken without tracking");
    if (fails(g, "take_changed", errp))
        return false;
    *map |= guest_ram_take_changed(&g->ram);
    return true;
}

/* The whole state that it began with, now that all of it is here. */
static void check_origin(SimGuest *g)
{
    struct sim_cpu c = g->origin.cpu;
    uint32_t lineage = c.lineage;

    if (!lineage || g->origin.lacks)
        return;
    c.lineage = 0;
    history_check(lineage, c.step, sim_mix(g->origin.sum + sim_bytes_digest(&c, sizeof(c))));
    g->origin.cpu.lineage = 0;
}

static void note_origin(SimGuest *g)
{
    g->origin.cpu = g->cpu;
    g->origin.lacks = sim_missing_set(g->missing);
    g->origin.sum = 0;
    for (uint64_t p = 0; p < SIM_GUEST_PAGES; p++)
        if (!(g->origin.lacks & UINT64_C(1) << p))
            g->origin.sum += guest_ram_page_digest(&g->ram, p);
}

static void wake(SimGuest *g)
{
    task_lock(&g->lock);
    task_broadcast(&g->cond);
    task_unlock(&g->lock);
}

static void on_placed(void *opaque, uint64_t page)
{
    SimGuest *g = opaque;

    if (g->origin.lacks & UINT64_C(1) << page)
        g->origin.sum += guest_ram_page_digest(&g->ram, page);
    g->origin.lacks &= ~(UINT64_C(1) << page);
    check_origin(g);
    wake(g);
}

static void on_abandoned(void *opaque)
{
    SimGuest *g = opaque;

    if (g->powered)
        sim_fail("a guest that runs goes on with zeroes for what it lacks");
    wake(g);
}

static void on_missing_gone(void *opaque)
{
    SimGuest *g = opaque;

    if (sim_guest_lacks(g) && sim_guest_runs(g) && !g->standing)
        sim_fail("a guest that runs is not told that its memory will not come");
    g->missing = NULL;
}

static MissingPages *guest_missing_new(Guest *gg, Error **errp)
{
    SimGuest *g = of(gg);

    if (fails(g, "missing_new", errp))
        return NULL;
    g->missing = sim_missing_new(
        g->ram.memory, &(struct sim_missing_watch){on_placed, on_abandoned, on_missing_gone, g}, errp);
    return g->missing;
}

/* A takeover needs all of it. false: it will not come. */
static bool await_memory(SimGuest *g)
{
    task_lock(&g->lock);
    while (sim_guest_lacks(g)) {
        sim_missing_touch(g->missing, (uint64_t)__builtin_ctzll(sim_missing_set(g->missing)));
        task_wait(&g->cond, &g->lock);
    }
    task_unlock(&g->lock);
    return !g->missing || !sim_missing_abandoned(g->missing);
}

static uint64_t guest_changed_pages(Guest *gg)
{
    return guest_ram_changed(&of(gg)->ram);
}

static enum guest_request guest_request(Guest *gg)
{
    return of(gg)->cpu.request;
}

static bool guest_reset(Guest *gg, Error **errp)
{
    SimGuest *g = of(gg);

    if (g->powered && !g->standing)
        sim_fail("a reset while the guest runs");
    if (!await_memory(g)) {
        error_setg(errp, "its memory does not come");
        return false;
    }
    if (!g->powered) /* at a takeover, before it */
        history_check(g->cpu.lineage, g->cpu.step, digest(g));
    if (g->cpu.request == GUEST_REQUEST_POWEROFF || g->cpu.request == GUEST_REQUEST_PANIC)
        sim_fail("a guest that was switched off is started again");
    reset(g);
    if (g->powered) {
        note_pause(g);
    } else {
        history_paused(g->cpu.lineage, g->cpu.step, digest(g));
        content_moved(g->cpu.lineage, g->cpu.step - 1, g->cpu.step);
    }
    return true;
}

static bool guest_save_config(Guest *gg, VMStream *f, Error **errp)
{
    (void)gg;
    perdure_stream_begin(f, RECORD_CONFIG, 0);
    perdure_stream_put_u64(f, SIM_GUEST_PAGES);
    perdure_stream_end(f);
    return !perdure_stream_error(f, errp);
}

static bool guest_take_over(Guest *gg, Error **errp)
{
    SimGuest *g = of(gg);
    uint32_t from = g->cpu.lineage;

    (void)errp; /* it does not fail: nobody would be left to run the guest */
    if (g->powered)
        sim_fail("a running guest takes over");
    if (sim_guest_lacks(g)) {
        note_origin(g);
        g->cpu.lineage = history_take_over_early(from, g->cpu.step);
    } else {
        g->cpu.lineage = history_take_over(from, g->cpu.step, digest(g));
    }
    guest_disks_take_over(g->disks, &g->cpu.disk, from, g->cpu.step, g->cpu.lineage);
    sim_trace("takeover at step %llu: lineage %u", (unsigned long long)g->cpu.step, g->cpu.lineage);
    g->powered = true;
    g->pausing = g->standing = true; /* until the resume that starts it */
    return true;
}

static void guest_announce(Guest *gg)
{
    SimGuest *g = of(gg);
    struct sim_frame f = {.kind = FRAME_ANNOUNCE, .step = g->cpu.step, .lineage = g->cpu.lineage};
    struct iovec iov = {&f, sizeof(f)};

    net_send(g->net, &iov, 1);
}

static bool guest_clear(Guest *gg, bool keep_ram, Error **errp)
{
    SimGuest *g = of(gg);

    if (!g->standing && sim_guest_runs(g))
        sim_fail("a running guest is cleared");
    guest_disks_drop(g->disks);
    g->cpu = (struct sim_cpu){.lineage = 0};
    g->powered = g->pausing = g->standing = false;
    return guest_ram_clear(&g->ram, keep_ram, errp);
}

static bool guest_mark_disks(Guest *gg, const struct guest_disk_mark *mark, Error **errp)
{
    return guest_disks_mark(of(gg)->disks, mark, of(gg)->cpu.lineage, errp);
}

static bool guest_hold_disks(Guest *gg, enum guest_disk_hold how, Error **errp)
{
    return guest_disks_hold(of(gg)->disks, how, errp);
}

static const struct guest_ops ops = {
    .pause = guest_pause,
    .resume = guest_resume,
    .finish_writes = guest_finish_writes,
    .tracking_start = guest_tracking_start,
    .tracking_stop = guest_tracking_stop,
    .collect = guest_collect,
    .take_changed = guest_take_changed,
    .missing_new = guest_missing_new,
    .changed_pages = guest_changed_pages,
    .request = guest_request,
    .reset = guest_reset,
    .mark_disks = guest_mark_disks,
    .hold_disks = guest_hold_disks,
    .save_config = guest_save_config,
    .take_over = guest_take_over,
    .announce = guest_announce,
    .clear = guest_clear,
};

/* --- birth and death --- */

void sim_guest_init(uint64_t seed)
{
    struct sim_rng rng = sim_rng_make(seed, 6);

    step_ns = sim_rng_range(&rng, 300, 4000) * NS_PER_US;
    guest_ram_init(seed);
    observer_register();
    net_output_buffer_register();
    console_gate_register();
    guest_disks_init();
}

static uint64_t step_of(void *opaque)
{
    return ((SimGuest *)opaque)->cpu.step;
}

SimGuest *sim_guest_new(Error **errp)
{
    SimGuest *g = calloc(1, sizeof(*g));

    if (!g)
        abort();
    g->host = sim_host_current();
    g->guest.ops = &ops;
    task_mutex_init(&g->lock);
    task_cond_init(&g->cond);
    observer_begin(&g->observer, g->host, step_of, g);
    g->net = net_output_buffer_new(world_port_new(g->host), 64 * 1024, errp);
    g->console = g->net ? console_gate_new("console", world_console, g->host, 16 * 1024, errp) : NULL;
    g->disks = guest_disks_new(errp);
    observer_end(&g->observer);
    if (!g->console || !g->disks || !guest_ram_new(&g->ram, SIM_GUEST_PAGES, errp))
        sim_fail("the guest cannot be made");
    g->guest.memory = g->ram.memory;
    if (!ram_state_register(&g->guest, errp) || !perdure_vmstate_register(&cpu_vmstate, -1, &g->cpu, errp) ||
        !(g->task = task_start("guest", guest_main, g, errp)))
        sim_fail("the guest cannot be made");
    return g;
}

void sim_guest_free(SimGuest *g)
{
    if (!g)
        return;
    task_lock(&g->lock);
    g->quit = true;
    task_broadcast(&g->cond);
    task_unlock(&g->lock);
    task_join(g->task);
    perdure_vmstate_unregister(&cpu_vmstate, &g->cpu);
    ram_state_unregister(&g->guest);
    console_gate_free(g->console);
    net_close(g->net);
    guest_disks_free(g->disks);
    observer_remove(&g->observer);
    guest_ram_free(&g->ram);
    task_cond_destroy(&g->cond);
    task_mutex_destroy(&g->lock);
    free(g);
}

Guest *sim_guest_guest(SimGuest *g)
{
    return &g->guest;
}

void sim_guest_power_on(SimGuest *g)
{
    g->cpu.lineage = 1;
    g->cpu.rng = 1;
    guest_disks_boot(g->disks, g->cpu.lineage);
    g->powered = true;
    wake(g);
}

void sim_guest_boot(SimGuest *g, bool certain)
{
    struct sim_cpu *c = &g->cpu;

    c->lineage = history_boot(sim_store_here()->lineage);
    c->rng = c->lineage;
    c->frames = c->console = ++boots * OUTPUTS_OF_A_BOOT;
    guest_disks_boot(g->disks, c->lineage);
    guest_disks_read_log(g->disks, &c->disk, c->applied, c->chain, certain);
    sim_trace("boot of lineage %u: the log ends with record %llu", c->lineage,
              (unsigned long long)c->disk.written);
    g->powered = true;
    wake(g);
}

void sim_guest_wish(SimGuest *g, enum guest_request what)
{
    g->wish = what;
    wake(g);
}

const struct sim_cpu *sim_guest_cpu(const SimGuest *g)
{
    return &g->cpu;
}

void sim_guest_fail(SimGuest *g, unsigned nth, bool again, const char *text)
{
    g->fail_in = nth;
    g->fail_again = again;
    g->failed_once = false;
    snprintf(g->fail_text, sizeof(g->fail_text), "%s", text);
}

void sim_guest_fail_no_more(SimGuest *g)
{
    if (g->failed_once)
        g->fail_in = 0;
    g->failed_once = false;
}

void sim_guest_on_end(SimGuest *g, void (*fn)(void *opaque), void *opaque)
{
    g->on_end = fn;
    g->on_end_opaque = opaque;
}

static Guest *factory_create(struct guest_factory *gf, VMStream *f, Error **errp)
{
    uint64_t id, pages = 0;
    uint16_t type;

    (void)gf;
    while (perdure_stream_next(f, &type, &id)) {
        if (type == RECORD_CONFIG)
            pages = perdure_stream_get_u64(f);
        perdure_stream_done(f);
    }
    if (perdure_stream_error(f, errp))
        return NULL;
    if (pages != SIM_GUEST_PAGES) {
        error_setg(errp, "the configuration names %llu pages", (unsigned long long)pages);
        return NULL;
    }
    return sim_guest_guest(sim_guest_new(errp));
}

static void factory_destroy(struct guest_factory *gf, Guest *g)
{
    (void)gf;
    sim_guest_free(of(g));
}

struct guest_factory *sim_guest_factory(void)
{
    static struct guest_factory factory = {.create = factory_create, .destroy = factory_destroy};

    return &factory;
}

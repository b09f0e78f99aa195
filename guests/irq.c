/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * irq: lives on interrupts alone, and finds the one that did not come. Disk: one read after the other, each
 * started only after the interrupt of the one before; sector s of the image holds the 64-bit numbers 64 * s,
 * 64 * s + 1, ... (the whole image: 0, 1, 2, ...). Network (on the second processor, if there is one):
 * answers only what an interrupt announced, and announces its own address `arp=` times a second so that there
 * are transmit interrupts without a peer. A LAPIC timer ticks on every processor, and each processor sends
 * the other IPIs, waiting for them. What is late is measured in time that the guest ran: a pause is nobody's
 * fault.
 */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"
#include "lib/virtio_blk.h"

const char guest_name[] = "irq";

#define IRQ_IPI     3
#define IRQ_TIMER   4
#define MASK_EVERY  64    /* requests between two that complete under a masked vector */
#define SECTORS_MAX 8     /* of a request */
#define GAP_MAX_US  20000 /* a longer gap in the guest's time is a pause, and counts as this much */
#define LOST_FACTOR 10    /* a device may take its time; after so many timeouts a kick was lost */

static const char *const source_names[] = {"blk", "net-rx", "net-tx", "timer0", "timer1", "ipi"};

/* Something that must go on; late: us that this processor ran since it last did. */
struct watch {
    enum guest_irq_source source;
    volatile uint64_t *counter;
    uint64_t seen; /* interrupts accounted for */
    uint64_t late;
};

static struct blk blk;
static uint64_t data[SECTORS_MAX * BLK_SECTOR / 8] __attribute__((aligned(4096)));
static struct {
    struct watch watch;
    uint64_t sector, random, requests;
    unsigned n;
    bool masked, slow;
} disk;
static struct {
    struct watch rx, tx;
    uint64_t next_announce, interval;
} wire;
static struct watch timers[GUEST_CPUS_MAX], ipi;
static uint64_t next_ipi;

static bool have_blk, have_net;
static int net_cpu;
static uint64_t timeout_us;
static volatile bool go, second_ended;
static bool deadline;

static void watch_init(struct watch *w, enum guest_irq_source source, int cpu, unsigned vector)
{
    *w = (struct watch){.source = source, .counter = cpu_irq_count(cpu, vector)};
}

/* Interrupts since the last call. */
static uint64_t watch_take(struct watch *w)
{
    uint64_t now = *w->counter, n = now - w->seen;

    w->seen = now;
    status.irq.interrupts[w->source] = now;
    return n;
}

static void stuck(struct watch *w, const char *used)
{
    guest_fail(GUEST_ERROR_STUCK, w->source, *w->counter, status.irq.completions[w->source]);
    print("STUCK queue=%s used=%s interrupts=%u completions=%u\n", source_names[w->source], used, *w->counter,
          status.irq.completions[w->source]);
}

/* No interrupt for `us` of run time more, though it should have come; used: the device says that it is done.
 */
static void watch_late(struct watch *w, uint64_t us, bool used)
{
    w->late += us;
    if (w->late > (used ? timeout_us : timeout_us * LOST_FACTOR))
        stuck(w, used ? "yes" : "no");
}

static void disk_start(void)
{
    disk.random = disk.random * 6364136223846793005ull + 1442695040888963407ull;
    disk.n = 1 + (disk.random >> 33) % SECTORS_MAX;
    disk.sector = (disk.random >> 36) % (blk.sectors - disk.n + 1);
    disk.masked = ++disk.requests % MASK_EVERY == 0;
    disk.slow = false;
    disk.watch.late = 0;
    if (disk.masked)
        virtio_mask(&blk.v, 0, true);
    vq_arm(&blk.q);
    memset(data, 0xee, sizeof(data)); /* what is not read is found */
    blk_start(&blk, 0, BLK_READ, disk.sector, data, disk.n * BLK_SECTOR);
}

static void disk_check(void)
{
    uint64_t first = disk.sector * (BLK_SECTOR / 8);
    bool ok = false;

    if (blk_take(&blk, &ok) != 0 || !ok) {
        guest_fail(GUEST_ERROR_DATA, disk.sector, 0, 0);
        print("DATA sector=%u: the read failed\n", disk.sector);
        return;
    }
    for (unsigned i = 0; i < disk.n * BLK_SECTOR / 8; i++) {
        if (data[i] == first + i)
            continue;
        guest_fail(GUEST_ERROR_DATA, disk.sector + i / (BLK_SECTOR / 8), data[i], first + i);
        print("DATA sector=%u have=%x want=%x\n", disk.sector + i / (BLK_SECTOR / 8), data[i], first + i);
        return;
    }
    status.irq.sectors += disk.n;
}

static void disk_turn(uint64_t us)
{
    bool used = vq_pending(&blk.q);

    if (used && disk.masked) { /* its interrupt is pending in the MSI-X table now, and comes when unmasked */
        disk.masked = false;
        disk.watch.late = 0;
        status.irq.masked++;
        virtio_mask(&blk.v, 0, false);
        return;
    }
    if (watch_take(&disk.watch) && vq_pending(&blk.q)) {
        status.irq.completions[GUEST_IRQ_BLK]++;
        disk_check();
        disk_start();
        return;
    }
    watch_late(&disk.watch, us, used);
    if (!used && disk.watch.late > timeout_us && !disk.slow) {
        disk.slow = true;
        status.irq.slow++;
    }
}

/* Answers until nothing is left that no interrupt will announce, or until no transmit buffer is left. */
static void answer_all(struct net *net)
{
    do {
        uint16_t before = net->rx.last_used;
        service_poll();
        status.irq.completions[GUEST_IRQ_NET_RX] += (uint16_t)(net->rx.last_used - before);
    } while (vq_arm(&net->rx) && net->tx_free);
    wire.rx.late = 0;
}

static void reclaim_all(struct net *net)
{
    bool starved = net->tx_free == 0;

    do
        net_reclaim(net);
    while (vq_arm(&net->tx));
    status.irq.completions[GUEST_IRQ_NET_TX] = net->tx_done;
    wire.tx.late = 0;
    if (starved)
        answer_all(net);
}

static void wire_turn(uint64_t now, uint64_t us)
{
    struct net *net = service_net();

    if (watch_take(&wire.tx))
        reclaim_all(net);
    else if (~net->tx_free)
        watch_late(&wire.tx, us, vq_pending(&net->tx));
    else
        wire.tx.late = 0;
    if (watch_take(&wire.rx))
        answer_all(net);
    else if (vq_pending(&net->rx) && net->tx_free)
        watch_late(&wire.rx, us, true);
    else
        wire.rx.late = 0;
    if (wire.interval && (int64_t)(now - wire.next_announce) >= 0) {
        wire.next_announce = now + wire.interval;
        service_announce();
    }
}

static void timer_turn(struct watch *w, uint64_t us)
{
    uint64_t ticks = watch_take(w);

    status.irq.completions[w->source] += ticks;
    if (ticks)
        w->late = 0;
    else
        watch_late(w, us, true);
}

/* About a thousand IPIs a second, each sent when the one before came. */
static void ipi_turn(uint64_t now, uint64_t us)
{
    uint64_t sent = status.irq.completions[GUEST_IRQ_IPI];

    watch_take(&ipi);
    if (ipi.seen < sent) {
        watch_late(&ipi, us, true);
    } else if ((int64_t)(now - next_ipi) >= 0) {
        ipi.late = 0;
        next_ipi = now + ticks_of_us(1000);
        status.irq.completions[GUEST_IRQ_IPI] = sent + 1;
        cpu_send_ipi(status.cpus - 1, IRQ_IPI);
    }
}

static void turn(int cpu, uint64_t now, uint64_t us)
{
    if (cpu == 0 && have_blk)
        disk_turn(us);
    if (cpu == 0)
        ipi_turn(now, us);
    if (cpu == net_cpu && have_net)
        wire_turn(now, us);
    timer_turn(&timers[status.cpus - 1 - cpu],
               us); /* each looks after the other's: its own may be asleep for ever */
    status.heartbeat[cpu]++;
}

static void start_timer(void)
{
    unsigned hz = option_number("hz", 100);

    if (deadline)
        cpu_timer_deadline(hz ? hz : 1);
    else
        cpu_timer_periodic(IRQ_TIMER, hz ? hz : 1);
}

static void live(int cpu)
{
    bool halts = !option_is("idle", "spin"), always = option_is("idle", "halt");
    volatile uint64_t *total = cpu_irq_count(cpu, CPU_TOTAL);
    uint64_t last = rdtsc(), now, seen, us, max = ticks_of_us(GAP_MAX_US);

    while (status.errors == 0) {
        seen = *total;
        now = rdtsc();
        us = (now - last < max ? now - last : max) * 1000 / clock_khz();
        if (us)
            last = now;
        turn(cpu, now, us);
        if (halts && (always || (seen & 16))) {
            __atomic_fetch_add(&status.irq.halts, 1, __ATOMIC_RELAXED);
            cpu_halt(total, seen);
        }
    }
}

static void second_main(void)
{
    while (!go)
        cpu_relax();
    start_timer();
    live(1);
    second_ended = true;
}

static bool start_devices(void)
{
    bool event_idx = option_number("event_idx", 1);
    uint64_t announcements = option_number("arp", 100);

    have_blk = blk_open(&blk, 0, 0, event_idx, 0) && blk.sectors >= SECTORS_MAX;
    have_net = service_start(NULL, net_cpu, event_idx);
    if (!have_blk && !have_net) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("irq: neither a usable virtio-blk (of 8 sectors or more) nor a network\n");
        return false;
    }
    watch_init(&disk.watch, GUEST_IRQ_BLK, 0, BLK_IRQ);
    watch_init(&wire.rx, GUEST_IRQ_NET_RX, net_cpu, NET_IRQ_RX);
    watch_init(&wire.tx, GUEST_IRQ_NET_TX, net_cpu, NET_IRQ_TX);
    wire.interval = announcements ? clock_khz() * 1000 / announcements : 0;
    return true;
}

static void start_watches(void)
{
    unsigned vector = deadline ? CPU_DEADLINE : IRQ_TIMER;

    watch_init(&timers[0], GUEST_IRQ_TIMER0, 0, vector);
    watch_init(&timers[1], GUEST_IRQ_TIMER1, 1, vector);
    watch_init(&ipi, GUEST_IRQ_IPI, status.cpus - 1, IRQ_IPI);
}

void guest_main(void)
{
    deadline = option_is("timer", "deadline") && cpu_has_deadline();
    timeout_us = option_number("timeout", 1000) * 1000;
    if (option_number("cpus", 1) > 1) {
        if (!cpu_start_second(second_main)) {
            guest_fail(GUEST_ERROR_SETUP, 0, 1, 2);
            print("irq: the second processor did not start\n");
            return;
        }
        status.cpus = 2;
    }
    net_cpu = status.cpus - 1;
    cpu_apic_enable();
    start_watches();
    if (!start_devices())
        return;
    start_timer();
    go = true;
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("irq: running, blk=%u net=%u cpus=%u\n", (uint64_t)have_blk, (uint64_t)have_net,
              (uint64_t)status.cpus);
    if (have_blk)
        disk_start();
    live(0);
    for (int ms = 0; ms < 1000 && status.cpus > 1 && !second_ended; ms++)
        delay_us(1000);
    if (have_net)
        service_net()->tx.interrupts = false; /* from here on polled, so that the status can be asked for */
}

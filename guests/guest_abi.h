/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the small guests promise to whoever watches them: the status block in their RAM and the UDP protocol.
 *
 * Included by the guests (freestanding) and by tests and benchmarks on the host. Everything is little-endian.
 *
 * The status block lies at guest physical GUEST_STATUS_ADDRESS, the first page of the guest's image, so that
 * a loader reserves and clears it. A host that has the guest's RAM mapped may read it at any time (fields are
 * written whole, in no order) and may write `control`. Over the network GUEST_OP_STATUS returns a copy,
 * GUEST_OP_CONTROL replaces `control`. Linux that counts (guests/linux) has its block wherever it lies: it can
 * only be asked.
 *
 * Command line, common to all guests (key=value, separated by blanks; numbers take 0x and K, M, G):
 *
 *   cpus=1|2          start the second processor (LAPIC id 1) by INIT/SIPI
 *   ip=10.0.0.2       answer ARP, ICMP echo and UDP port 7007 on the first virtio-net
 *   tsc_khz=N         frequency of the TSC; default: KVM's CPUID leaf, else measured against the PIT (20 ms)
 *   pm=0x604          PM1a control port for power-off
 *   pm_value=N        what is written there (default: 0x3400, then 0x2000)
 *   quiet=1           print nothing but errors
 *
 *   walk, count, dirty: start=16M (where their pages begin)
 *   walk:   size=16M  rate=0 (pages a second and processor; 0: as fast as possible)
 *   count, log: pages=1024 (pages that requests dirty in turn)   dirty=2 (pages a request)
 *   dirty:  pages=1024 (window)  rate=1000 (pages a second)
 *   irq:    timer=periodic|deadline (where CPUID has it)  hz=100  idle=mix|spin|halt  timeout=1000 (ms)
 *           arp=100 (announcements a second)  event_idx=1|0
 *   disk:   op=read|write  order=random|sequential  block=4K (up to 1M)  depth=1 (requests in flight, up to 16)
 *           flush=0 (a flush, waited for, after so many writes)  span=0 (bytes of the disk that it uses; 0: all)
 *           seconds=5  warm=0 (ms that do not count)  event_idx=1|0
 */
#ifndef GUESTS_GUEST_ABI_H
#define GUESTS_GUEST_ABI_H

#include <stdint.h>

#define GUEST_STATUS_ADDRESS 0x200000u
#define GUEST_STATUS_MAGIC   0x5441545344524550ull /* "PERDSTAT" */
#define GUEST_STATUS_VERSION 1
#define GUEST_PAGE           4096u
#define GUEST_CPUS_MAX       2

enum guest_state {
    GUEST_STATE_BOOTING = 0,
    GUEST_STATE_RUNNING = 1,
    GUEST_STATE_FAILED =
        2, /* an error was found and recorded; the guest stands still, but still answers UDP */
};

enum guest_error {
    GUEST_ERROR_NONE = 0,
    GUEST_ERROR_TORN = 1,      /* a page does not hold what was last written: where = its address */
    GUEST_ERROR_STUCK = 2,     /* an interrupt did not come: where = enum guest_irq_source */
    GUEST_ERROR_DATA = 3,      /* a disk sector read wrong: where = sector */
    GUEST_ERROR_EXCEPTION = 4, /* where = rip, have = vector, want = error code */
    GUEST_ERROR_SETUP = 5,     /* a device or an option is missing */
    GUEST_ERROR_CLOCK = 6,     /* the TSC went backwards: have = now, want = at least */
    GUEST_ERROR_DISK = 7,      /* a request failed: where = sector, have = enum blk_type */
};

/*
 * walk: every page of [start, start + size) has a byte at offset 0 that processor i increments in the i-th
 * part (of `cpus` equal ones), first page to last, round and round. So at any instant the bytes of a part are
 * v, v, ..., v, v-1, ..., v-1 (modulo 256): one descending step, or none. The 64-byte line that follows moves
 * with the value: bytes [64 * (1 + v % 63), +8) hold walk_stamp(page, v).
 */
static inline uint64_t guest_walk_stamp(uint64_t page, uint8_t value)
{
    return (page << 8 | value) * 0x9e3779b97f4a7c15ull;
}

static inline unsigned guest_walk_stamp_offset(uint8_t value)
{
    return 64 * (1 + value % 63);
}

struct guest_walk_status {
    uint64_t start, size;
    uint64_t position[GUEST_CPUS_MAX]; /* page within the part that is written next */
    uint64_t value[GUEST_CPUS_MAX];    /* what it is written with, modulo 256 */
};

struct guest_count_status {
    uint64_t counter; /* requests carried out, of all clients */
    uint64_t repeated, gaps, old;
    uint64_t clients;
    uint64_t start, pages, dirty;
};

/*
 * log: what it writes to each of its disks for each request that it carries out; record `number` (from 1, over all
 * clients) lies in the number - 1 st place of 512 bytes, round and round.
 */
#define GUEST_LOG_MAGIC 0x474f4c44455250ull /* "PREDLOG" */

struct guest_log_record {
    uint64_t magic, number;
    uint64_t client, seq, nonce, chain; /* of the request */
    uint64_t boot_id;
    uint64_t check; /* over all the others */
    uint64_t filling[56];
};

_Static_assert(sizeof(struct guest_log_record) == 512, "a sector");

static inline uint64_t guest_log_filling(uint64_t number, unsigned i)
{
    return (number << 8 | i) * 0x9e3779b97f4a7c15ull;
}

static inline uint64_t guest_log_check(const struct guest_log_record *r)
{
    const uint64_t *word = (const uint64_t *)r;
    uint64_t check = 0;

    for (unsigned i = 0; i < sizeof(*r) / 8; i++)
        if (&word[i] != &r->check)
            check = ((check << 5 | check >> 59) ^ word[i]) * 0x9e3779b97f4a7c15ull;
    return check;
}

#define GUEST_GAP_BUCKETS 40
#define GUEST_GAP_LARGEST 16

struct guest_gap {
    uint64_t at_ns; /* since boot */
    uint64_t length_ns;
};

#define GUEST_WRITE_BUCKETS   48
#define GUEST_WRITE_BUCKET_NS 4096
#define GUEST_WRITE_FROM      3 /* a page that is here, and was not yet written to since, takes less */

/* Gaps of the guest's own time: between two turns of its loop, histogram by floor(log2(ns)). */
struct guest_dirty_status {
    uint64_t pages_written;
    uint64_t gaps; /* of at least 8.192 us: the ones that the histogram and `largest` hold */
    uint64_t gap_sum_ns, gap_max_ns;
    uint64_t since_ns; /* when the histogram was last cleared, since boot */
    uint64_t now_ns;
    uint64_t histogram[GUEST_GAP_BUCKETS];
    /* Writes to a page that took long, by GUEST_WRITE_BUCKET_NS; the last bucket has all that took longer. Those of the
     * first GUEST_WRITE_FROM buckets are not counted. */
    uint32_t slow_writes[GUEST_WRITE_BUCKETS];
    struct guest_gap largest[GUEST_GAP_LARGEST]; /* in no order */
};

enum guest_irq_source {
    GUEST_IRQ_BLK = 0,
    GUEST_IRQ_NET_RX = 1,
    GUEST_IRQ_NET_TX = 2,
    GUEST_IRQ_TIMER0 = 3,
    GUEST_IRQ_TIMER1 = 4,
    GUEST_IRQ_IPI = 5,
    GUEST_IRQ_SOURCES = 6,
};

struct guest_irq_status {
    uint64_t interrupts[GUEST_IRQ_SOURCES];
    uint64_t completions[GUEST_IRQ_SOURCES]; /* what they were for; timers: ticks that the loop saw */
    uint64_t sectors;                        /* read and found right */
    uint64_t masked;                         /* requests completed while their vector was masked */
    uint64_t halts;
    uint64_t slow; /* no completion within the timeout: the device took its time */
};

/*
 * disk: sector s of a disk that it has written, or that it may read, has 64 * s in its first 8 bytes (the image of
 * `irq` is one). Latencies, from kick to completion seen, are counted by their two leading bits below the highest:
 * bucket 4 * log2(ns) + the next two bits - GUEST_DISK_BUCKET_FIRST.
 */
#define GUEST_DISK_BUCKETS      96
#define GUEST_DISK_BUCKET_FIRST 32 /* 256 ns */

struct guest_disk_status {
    uint64_t operations, bytes, flushes; /* since the warm-up */
    uint64_t elapsed_ns;
    uint64_t latency_sum_ns, latency_max_ns, flush_sum_ns;
    uint64_t done; /* 1: its seconds are over */
    uint32_t histogram[GUEST_DISK_BUCKETS];
};

/* Written by the host (or GUEST_OP_CONTROL); read by `dirty` at every turn. */
struct guest_control {
    uint64_t sequence; /* change it last: the other fields take effect when it differs from the one before */
    uint64_t rate;     /* pages a second; 0: none */
    uint64_t pages;    /* window */
    uint64_t stride;   /* pages from one to the next; 0: 1 */
    uint32_t reset;    /* 1: clear histogram and counters */
    uint32_t print;    /* 1: print the status on the console */
};

struct guest_status {
    uint64_t magic;
    uint32_t version, size; /* of this struct */
    char name[16];
    uint64_t boot_id; /* random for every boot, never 0 */
    uint64_t tsc_khz;
    uint32_t cpus;
    uint32_t state; /* enum guest_state */
    uint64_t heartbeat[GUEST_CPUS_MAX];
    uint64_t rounds[GUEST_CPUS_MAX];
    uint64_t errors;
    uint32_t error; /* enum guest_error: the first one */
    uint32_t error_cpu;
    uint64_t error_where, error_have, error_want;
    uint64_t frames_in, frames_out, frames_bad; /* bad: wrong checksum or length */
    uint64_t control_seen;                      /* last control.sequence that took effect */
    struct guest_control control;
    union {
        struct guest_walk_status walk;
        struct guest_count_status count;
        struct guest_dirty_status dirty;
        struct guest_irq_status irq;
        struct guest_disk_status disk;
    };
};

_Static_assert(sizeof(struct guest_status) <= 1280, "must fit into one datagram");

/*
 * The UDP protocol: one datagram there, one back, to GUEST_UDP_PORT; both begin with a struct guest_message.
 * An answer repeats op, client, seq and nonce of its request, so that a client knows which of its requests it
 * answers.
 */
#define GUEST_UDP_PORT      7007
#define GUEST_MESSAGE_MAGIC 0x4d475550u /* "PUGM" */
#define GUEST_TEXT_MAX      200

enum guest_op {
    /*
     * Only `count`. For each client the guest knows its last seq (0 at first):
     *   seq == last + 1: carried out: value = last = seq, chain = guest_chain(chain, nonce), the counter goes
     * up; OK seq == last, same nonce: the same answer again (the client resent it); OK anything else: not
     * carried out; GAP (seq above: state was lost), OLD (below) or NONCE (last, but not what was asked then),
     * with the value and chain that the guest has for this client A client that keeps its own chain therefore
     * finds every lost, doubled and swapped request.
     */
    GUEST_OP_COUNT = 1,
    GUEST_OP_STATUS = 2,   /* the answer is followed by struct guest_status */
    GUEST_OP_CONTROL = 3,  /* followed by struct guest_control; its sequence field is set by the guest */
    GUEST_OP_PRINT = 4,    /* followed by text (at most GUEST_TEXT_MAX), printed on the console as one line */
    GUEST_OP_POWEROFF = 5, /* this and those below: answered, then done */
    GUEST_OP_RESET = 6,    /* through 0xcf9 */
    GUEST_OP_RESET_KBD = 7, /* through the keyboard controller */
    GUEST_OP_TRIPLE_FAULT = 8,
    GUEST_OP_PANIC = 9, /* the panic doorbell, port 0x510 */
};

enum guest_answer {
    GUEST_ANSWER_OK = 0,
    GUEST_ANSWER_GAP = 1,
    GUEST_ANSWER_OLD = 2,
    GUEST_ANSWER_NONCE = 3,
    GUEST_ANSWER_FULL = 4,    /* too many clients */
    GUEST_ANSWER_FAILED = 5,  /* the guest found an error in its memory: see its status */
    GUEST_ANSWER_UNKNOWN = 6, /* this guest has no such op */
};

struct guest_message {
    uint32_t magic;
    uint16_t op;     /* enum guest_op */
    uint16_t answer; /* enum guest_answer; 0 in a request */
    uint64_t client; /* chosen at random by the client */
    uint64_t seq;    /* from 1 */
    uint64_t nonce;
    uint64_t value;   /* answer: the last seq carried out for this client */
    uint64_t chain;   /* answer: over the nonces of all of them */
    uint64_t counter; /* answer: requests carried out for all clients */
    uint64_t boot_id; /* answer: changes with every boot */
};

static inline uint64_t guest_chain(uint64_t chain, uint64_t nonce)
{
    return ((chain << 7 | chain >> 57) ^ nonce) * 0x9e3779b97f4a7c15ull + 1;
}

#endif

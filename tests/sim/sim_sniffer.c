/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim_sniffer.h"
#include "sim_link.h"

#include "stream/frame.h"

#include <stdlib.h>
#include <string.h>

struct flow {
    struct flow *next;
    uint64_t connection;
    SimHost *from;
    bool read;
    uint8_t header[FRAME_HEADER_SIZE];
    size_t have; /* of the header */
    struct frame frame;
    size_t left; /* of the body */
};

static struct flow *flows;
static void (*on_ack)(SimHost *reader, uint64_t epoch);
static void (*on_pages)(SimHost *writer);
static void (*on_move)(enum wire_record type, bool read, SimHost *from, SimHost *to);

static struct flow *flow_of(uint64_t connection, SimHost *from, bool read)
{
    struct flow *f = flows;

    while (f && (f->connection != connection || f->from != from || f->read != read))
        f = f->next;
    if (f)
        return f;
    f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    f->connection = connection;
    f->from = from;
    f->read = read;
    f->next = flows;
    return flows = f;
}

static void record(struct flow *f, SimHost *to)
{
    static const char *const names[] = {
        [0x00] = "HELLO", "HELLO_OK",   "REFUSE", "CONFIG",  "CONFIG_OK",   "START",    "STARTED",
        "SYNC_PAGES",     "PAGES",      "END",    "ACK",     "PROBE",       "PROBE_OK", "FAIL",
        "GOODBYE",        "GOODBYE_OK", "RUN",    "RUNNING", "NOT_STARTED", "ENDED",    "ENDED_OK",
        [0x1e] = "MOVE",  "NOT_MOVED",  "MOVED",  "LET_GO",  "STAY",        "SUCCEED",  "SUCCEEDED",
    };
    unsigned type = f->frame.type, n = type - WIRE_HELLO;
    const char *name = type >= WIRE_HELLO && n < sizeof(names) / sizeof(names[0]) ? names[n] : NULL;

    if (f->read && type == WIRE_ACK)
        on_ack(to, f->frame.id);
    if (!f->read && type == WIRE_PAGES)
        on_pages(f->from);
    if (on_move && type >= WIRE_MOVE && type <= WIRE_SUCCEEDED)
        on_move((enum wire_record)type, f->read, f->from, to);
    if (type == WIRE_PING || type == WIRE_PONG || type == WIRE_SYNC_PAGES || type == WIRE_PAGES)
        return;
    if (type >= WIRE_HELLO)
        sim_trace("%s %s %llu (%s to %s)", f->read ? "read" : "sent", name ? name : "other",
                  (unsigned long long)f->frame.id, sim_host_name(f->from), sim_host_name(to));
}

static void bytes(SimHost *from, SimHost *to, uint64_t connection, bool read, const uint8_t *data, size_t n)
{
    struct flow *f = flow_of(connection, from, read);

    while (n) {
        size_t *want = f->have < FRAME_HEADER_SIZE ? NULL : &f->left;
        size_t part = want ? *want : FRAME_HEADER_SIZE - f->have;

        part = part < n ? part : n;
        if (want) {
            f->left -= part;
        } else {
            memcpy(f->header + f->have, data, part);
            f->have += part;
            if (f->have == FRAME_HEADER_SIZE && frame_decode(f->header, &f->frame))
                sim_fail("%s sends a damaged frame", sim_host_name(from));
            f->left = f->have == FRAME_HEADER_SIZE ? f->frame.length : 0;
        }
        data += part;
        n -= part;
        if (f->have == FRAME_HEADER_SIZE && !f->left) {
            f->have = 0;
            record(f, to);
        }
    }
}

void sniffer_init(void (*acknowledged)(SimHost *reader, uint64_t epoch), void (*pages_sent)(SimHost *writer))
{
    static const struct sim_link_tap tap = {.bytes = bytes};

    on_ack = acknowledged;
    on_pages = pages_sent;
    sim_link_set_tap(&tap);
}

void sniffer_watch_moves(void (*fn)(enum wire_record type, bool read, SimHost *from, SimHost *to))
{
    on_move = fn;
}

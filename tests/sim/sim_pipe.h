/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One direction of a simulated connection: bytes in segments, each with the time at which it leaves and the
 * one at which it arrives.
 */
#ifndef SIM_PIPE_H
#define SIM_PIPE_H

#include "sim_runtime.h"

enum segment_kind { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RST };

struct segment {
    enum segment_kind kind;
    size_t size;
    int64_t departs, arrives; /* TIME_NEVER: held back by a cut */
};

struct pipe_params {
    int64_t latency, jitter, resend; /* resend: at most this long after a heal */
    uint64_t bytes_per_ms;
    size_t window, segment;
    bool short_reads;
};

struct sim_pipe {
    SimHost *from, *to;
    uint8_t *data; /* ring */
    size_t head, size, capacity;
    struct segment *segments; /* ring */
    size_t first, count, segments_capacity;
    size_t unacked;      /* bytes of the window in use */
    size_t unacked_held; /* of these: read, but the news is held back by a cut */
    int64_t line_free, last_arrival;
    bool ended;           /* FIN or RST was queued */
    int64_t refused_from; /* from then on who writes the other way is told that nobody reads; 0: not yet */
};

void pipe_init(struct sim_pipe *p, SimHost *from, SimHost *to);
void pipe_destroy(struct sim_pipe *p);
/* Room in the window. */
size_t pipe_room(const struct sim_pipe *p, const struct pipe_params *pp);
/* Queues n bytes, at most the room and the segment size. */
void pipe_put(struct sim_pipe *p, const struct pipe_params *pp, struct sim_rng *rng, const uint8_t *data,
              size_t n, bool cut);
void pipe_end(struct sim_pipe *p, const struct pipe_params *pp, enum segment_kind kind, bool cut);
/* What is written the other way now meets a closed end. */
void pipe_refuse(struct sim_pipe *p, const struct pipe_params *pp);
/* The first segment, NULL when there is none. */
struct segment *pipe_first(struct sim_pipe *p);
/* Takes up to n bytes that have arrived. */
size_t pipe_take(struct sim_pipe *p, uint8_t *buf, size_t n, bool ack_cut);
bool pipe_has_data(struct sim_pipe *p);
/* What has not arrived by now waits for pipe_heal(). */
void pipe_cut(struct sim_pipe *p);
void pipe_heal(struct sim_pipe *p, const struct pipe_params *pp, struct sim_rng *rng);
/* The other direction is healed: news of what was read come through. */
void pipe_heal_acks(struct sim_pipe *p);
/* Drops what has not left (or, all: what has not arrived). */
void pipe_drop(struct sim_pipe *p, bool all);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `perdure top` knows of one machine: the newest answer to perdure-status, a short history, the last
 * events. Pure data: who asks is top_poll.c, who draws is top_view.c.
 *
 * An answer is taken apart leniently: a member that is missing, or of another type, is empty or 0, so that a
 * build can watch older and newer ones.
 */
#ifndef CLI_TOP_MODEL_H
#define CLI_TOP_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOP_HISTORY 60
#define TOP_EVENTS  8
#define TOP_DISKS   8

struct top_summary {
    int64_t p50, p99, max;
};

struct top_disk {
    char id[32];                              /* empty: of all together */
    int64_t sync_left, sync_total, rate, eta; /* bytes; bytes a second; seconds */
};

struct top_event {
    int64_t time; /* seconds since 1970 */
    char name[48];
    char text[120];
};

struct top_row {
    char name[64];
    bool answers;    /* the last request was answered; if not, the rest is from before */
    char error[200]; /* why not */
    char role[16], state[16], run_state[20], pair[40], peer[80], arbiter[120];
    int64_t generation, epoch, vcpus, memory, sync_pages_left;
    int64_t checkpoints, rate_hz, interval_us, bytes_per_epoch, staging_full;
    struct top_summary pause_us, ack_us, held_us, dirty_pages;
    struct top_disk disks[TOP_DISKS];
    int disk_count;
    char last_error[200], report[2048];
    /* One entry an answer, oldest first. */
    int64_t rates[TOP_HISTORY], pauses[TOP_HISTORY];
    int history;
    /* Newest first. */
    struct top_event events[TOP_EVENTS];
    int event_count;
};

void top_row_init(struct top_row *row, const char *name);
void top_row_answer(struct top_row *row, json_t *status);
void top_row_silent(struct top_row *row, const char *why);
void top_row_event(struct top_row *row, json_t *event);

/* "1.2M": at most 6 characters and the end. */
void top_format_bytes(char *buf, size_t size, int64_t bytes);
/* Microseconds as "850us", "1.2ms", "3.4s". */
void top_format_us(char *buf, size_t size, int64_t us);
/* A line of at most width characters, one for each value, from ' ' (0) to '#' (the largest); the newest last.
 */
void top_format_history(char *buf, size_t size, const int64_t *values, int count, int width);

#endif

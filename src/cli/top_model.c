/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/top_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define copy_text(field, object, key) copy_string(field, sizeof(field), json_object_get(object, key))

static void copy_string(char *buf, size_t size, json_t *value)
{
    snprintf(buf, size, "%s", json_is_string(value) ? json_string_value(value) : "");
}

static int64_t number(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static struct top_summary summary(json_t *object, const char *key)
{
    json_t *s = json_object_get(object, key);

    return (struct top_summary){number(s, "p50"), number(s, "p99"), number(s, "max")};
}

void top_row_init(struct top_row *row, const char *name)
{
    *row = (struct top_row){.answers = false};
    snprintf(row->name, sizeof(row->name), "%s", name);
}

static void remember(struct top_row *row)
{
    if (row->history == TOP_HISTORY) {
        memmove(row->rates, row->rates + 1, sizeof(row->rates) - sizeof(row->rates[0]));
        memmove(row->pauses, row->pauses + 1, sizeof(row->pauses) - sizeof(row->pauses[0]));
        row->history--;
    }
    row->rates[row->history] = row->rate_hz;
    row->pauses[row->history++] = row->pause_us.p99;
}

static void take_checkpoint(struct top_row *row, json_t *c)
{
    row->checkpoints = number(c, "count");
    row->rate_hz = number(c, "rate_hz");
    row->interval_us = number(c, "interval_us");
    row->bytes_per_epoch = number(c, "bytes_per_epoch");
    row->staging_full = number(c, "staging_full");
    row->pause_us = summary(c, "pause_us");
    row->ack_us = summary(c, "ack_us");
    row->held_us = summary(c, "output_held_us");
    row->dirty_pages = summary(c, "dirty_pages");
}

static void take_disk(struct top_row *row, const char *id, json_t *d)
{
    struct top_disk *disk = &row->disks[row->disk_count];

    if (row->disk_count == TOP_DISKS || !json_is_object(d))
        return;
    *disk = (struct top_disk){.sync_left = number(d, "sync_left"),
                              .sync_total = number(d, "sync_total"),
                              .rate = number(d, "rate"),
                              .eta = number(d, "eta")};
    snprintf(disk->id, sizeof(disk->id), "%s", id);
    row->disk_count++;
}

/* Of all together, or an object for each id. */
static void take_disks(struct top_row *row, json_t *disks)
{
    const char *id;
    json_t *disk;

    row->disk_count = 0;
    if (json_is_integer(json_object_get(disks, "sync_left"))) {
        take_disk(row, "", disks);
        return;
    }
    json_object_foreach(disks, id, disk) take_disk(row, id, disk);
}

void top_row_answer(struct top_row *row, json_t *s)
{
    row->answers = true;
    row->error[0] = 0;
    copy_text(row->role, s, "role");
    copy_text(row->state, s, "state");
    copy_text(row->run_state, s, "run_state");
    copy_text(row->pair, s, "pair");
    copy_text(row->peer, s, "peer");
    copy_text(row->arbiter, s, "arbiter");
    copy_text(row->last_error, s, "last_error");
    copy_text(row->report, s, "report");
    row->generation = number(s, "generation");
    row->epoch = number(s, "epoch");
    row->vcpus = number(s, "vcpus");
    row->memory = number(s, "memory");
    row->sync_pages_left = number(s, "sync_pages_left");
    take_checkpoint(row, json_object_get(s, "checkpoint"));
    take_disks(row, json_object_get(s, "disks"));
    remember(row);
}

void top_row_silent(struct top_row *row, const char *why)
{
    row->answers = false;
    snprintf(row->error, sizeof(row->error), "%s", why);
}

void top_row_event(struct top_row *row, json_t *event)
{
    struct top_event *e = &row->events[0];

    memmove(row->events + 1, row->events, sizeof(row->events) - sizeof(row->events[0]));
    if (row->event_count < TOP_EVENTS)
        row->event_count++;
    e->time = number(json_object_get(event, "timestamp"), "seconds");
    copy_text(e->name, event, "event");
    copy_text(e->text, json_object_get(event, "data"), "text");
}

/* --- as text --- */

/* Three digits: 9.9 or 99 or 999, and the unit. */
static void format_scaled(char *buf, size_t size, double value, double step, const char *const *units)
{
    while (value >= step && units[1]) {
        value /= step;
        units++;
    }
    snprintf(buf, size, value < 10 && value != (int)value ? "%.1f%s" : "%.0f%s", value, *units);
}

void top_format_bytes(char *buf, size_t size, int64_t bytes)
{
    static const char *const units[] = {"", "K", "M", "G", "T", "P", NULL};

    format_scaled(buf, size, (double)bytes, 1024, units);
}

void top_format_us(char *buf, size_t size, int64_t us)
{
    static const char *const units[] = {"us", "ms", "s", NULL};

    format_scaled(buf, size, (double)us, 1000, units);
}

void top_format_history(char *buf, size_t size, const int64_t *values, int count, int width)
{
    static const char levels[] = " .:-=+*#";
    int first, n = 0, top = (int)sizeof(levels) - 2;
    int64_t largest = 1;

    if (width > (int)size - 1)
        width = (int)size - 1;
    first = count > width ? count - width : 0;
    for (int i = first; i < count; i++)
        largest = values[i] > largest ? values[i] : largest;
    for (int i = first; i < count; i++)
        buf[n++] = levels[values[i] > 0 ? 1 + (top - 1) * values[i] / largest : 0];
    buf[n] = 0;
}

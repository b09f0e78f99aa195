/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/top_page.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HEIGHT_MIN 4
#define WIDTH_MIN  20

__attribute__((format(printf, 2, 3))) static void add(struct top_page *page, const char *fmt, ...)
{
    va_list args;

    if (page->count == page->height || page->count == TOP_LINES_MAX)
        return;
    va_start(args, fmt);
    vsnprintf(page->lines[page->count], TOP_LINE_SIZE, fmt, args);
    va_end(args);
    if (page->width < TOP_LINE_SIZE)
        page->lines[page->count][page->width] = 0;
    page->count++;
}

/* False: no page fits, and the line says so. */
static bool begin(struct top_page *page)
{
    page->count = 0;
    page->marked = -1;
    if (page->height >= HEIGHT_MIN && page->width >= WIDTH_MIN)
        return true;
    add(page, "%dx%d is too small", page->width, page->height);
    return false;
}

/* "0.4/1.2/3 ms" would be shorter, and not comparable down a column. */
static void format_summary(char *buf, size_t size, const struct top_summary *s)
{
    char p50[16], p99[16], max[16];

    top_format_us(p50, sizeof(p50), s->p50);
    top_format_us(p99, sizeof(p99), s->p99);
    top_format_us(max, sizeof(max), s->max);
    snprintf(buf, size, "%s/%s/%s", p50, p99, max);
}

static int64_t sync_left(const struct top_row *row)
{
    int64_t left = 0;

    for (int i = 0; i < row->disk_count; i++)
        left += row->disks[i].sync_left;
    return left;
}

static void add_row(struct top_page *page, const struct top_row *row)
{
    char pause[48] = "-", ack[16] = "-", held[16] = "-", bytes[16] = "-", disk[16] = "-", rate[16] = "-";

    if (!row->answers && row->error[0]) {
        add(page, "%-16.16s %s", row->name, row->error);
        return;
    }
    if (row->checkpoints) {
        format_summary(pause, sizeof(pause), &row->pause_us);
        top_format_us(ack, sizeof(ack), row->ack_us.p99);
        top_format_us(held, sizeof(held), row->held_us.p99);
        top_format_bytes(bytes, sizeof(bytes), row->bytes_per_epoch);
        snprintf(rate, sizeof(rate), "%" PRId64, row->rate_hz);
    }
    if (row->disk_count)
        top_format_bytes(disk, sizeof(disk), sync_left(row));
    add(page, "%-16.16s %-7s %-11s %-9.9s %9" PRId64 " %5s %-19s %6" PRId64 " %6s %6s %6s %6s  %s", row->name,
        row->role, row->state, row->run_state, row->epoch, rate, pause, row->dirty_pages.p50, bytes, ack,
        held, disk, row->peer);
}

static void add_event(struct top_page *page, const struct top_event *e)
{
    time_t when = (time_t)e->time;
    struct tm tm;
    char clock[16] = "";

    if (localtime_r(&when, &tm))
        strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    add(page, "  %s %s %s", clock, e->name, e->text);
}

static void add_events(struct top_page *page, const struct top_row *row, int most)
{
    for (int i = 0; i < row->event_count && i < most; i++)
        add_event(page, &row->events[i]);
}

/* Which rows fit, so that the selected one is among them. */
static int first_shown(int n, int selected, int room)
{
    if (n <= room || selected < room / 2)
        return 0;
    return selected - room / 2 < n - room ? selected - room / 2 : n - room;
}

void top_page_list(struct top_page *page, const struct top_row *rows, int n, int selected)
{
    int events = page->height > 12 ? TOP_EVENTS : page->height > 8 ? 3 : 0, first, room;

    if (!begin(page))
        return;
    add(page, "perdure top: %d machine%s   arrows: select  enter: more  q: quit", n, n == 1 ? "" : "s");
    add(page, "%-16s %-7s %-11s %-9s %9s %5s %-19s %6s %6s %6s %6s %6s  %s", "NAME", "ROLE", "STATE", "GUEST",
        "EPOCH", "CKP/S", "PAUSE 50/99/MAX", "DIRTY", "BYTES", "ACK99", "HELD99", "DISKS", "PEER");
    if (!n)
        add(page, "no machine runs on this host");
    room = page->height - 2 - (events ? events + 1 : 0);
    first = first_shown(n, selected, room);
    for (int i = first; i < n && i < first + room; i++) {
        if (i == selected)
            page->marked = page->count;
        add_row(page, &rows[i]);
    }
    if (!events || selected >= n || !rows[selected].event_count)
        return;
    add(page, "events of %s:", rows[selected].name);
    add_events(page, &rows[selected], events);
}

static void add_lines(struct top_page *page, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");

        add(page, "  %.*s", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void add_summary(struct top_page *page, const char *what, const struct top_summary *s)
{
    char text[64];

    format_summary(text, sizeof(text), s);
    add(page, "  %-12s %s", what, text);
}

static void add_disk(struct top_page *page, const struct top_disk *d)
{
    char left[16], total[16], rate[16];

    top_format_bytes(left, sizeof(left), d->sync_left);
    top_format_bytes(total, sizeof(total), d->sync_total);
    top_format_bytes(rate, sizeof(rate), d->rate);
    if (d->sync_left)
        add(page, "disk %s: %s of %s left to sync, %s/s, %" PRId64 " s", d->id, left, total, rate, d->eta);
    else
        add(page, "disk %s: in sync, %s", d->id, total);
}

static void add_checkpoints(struct top_page *page, const struct top_row *row)
{
    char bytes[16], history[TOP_HISTORY + 1];

    top_format_bytes(bytes, sizeof(bytes), row->bytes_per_epoch);
    add(page,
        "checkpoints: %" PRId64 ", %" PRId64 " in the last second, %s each, staging full %" PRId64 " times",
        row->checkpoints, row->rate_hz, bytes, row->staging_full);
    add(page, "  %-12s p50/p99/max", "");
    add_summary(page, "pause", &row->pause_us);
    add_summary(page, "ack", &row->ack_us);
    add_summary(page, "output held", &row->held_us);
    add(page, "  %-12s %" PRId64 "/%" PRId64 "/%" PRId64, "dirty pages", row->dirty_pages.p50,
        row->dirty_pages.p99, row->dirty_pages.max);
    top_format_history(history, sizeof(history), row->rates, row->history, page->width - 16);
    add(page, "  %-12s [%s]", "rate", history);
    top_format_history(history, sizeof(history), row->pauses, row->history, page->width - 16);
    add(page, "  %-12s [%s]", "pause p99", history);
}

void top_page_detail(struct top_page *page, const struct top_row *row)
{
    if (!begin(page))
        return;
    add(page, "%s   left, escape: all machines  q: quit", row->name);
    if (!row->answers)
        add(page, "%s", row->error);
    add(page, "%s, %s, guest %s; %" PRId64 " vCPUs, %" PRId64 " MiB", row->role, row->state, row->run_state,
        row->vcpus, row->memory >> 20);
    if (row->pair[0]) {
        add(page, "pair %s, generation %" PRId64 ", epoch %" PRId64, row->pair, row->generation, row->epoch);
        add(page, "peer %s, arbiter %s", row->peer, row->arbiter);
    }
    if (!strcmp(row->state, "SYNCING"))
        add(page, "first sync: %" PRId64 " pages left", row->sync_pages_left);
    if (!strcmp(row->state, "MIGRATING") && !strcmp(row->role, "primary")) /* it knows */
        add(page, "migration: %" PRId64 " pages left", row->sync_pages_left);
    for (int i = 0; i < row->disk_count; i++)
        add_disk(page, &row->disks[i]);
    if (row->checkpoints)
        add_checkpoints(page, row);
    if (row->last_error[0])
        add(page, "last error: %s", row->last_error);
    if (row->event_count)
        add(page, "events:");
    add_events(page, row, TOP_EVENTS);
    if (row->report[0])
        add(page, "last change of role:");
    add_lines(page, row->report);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log: carries out numbered requests like `count`, and answers each only when its record (struct guest_log_record)
 * has been written to every disk and flushed. Before that it reads the record before, which must be there: a disk
 * that jumped, at a takeover or ever, is found.
 *
 *     retry=1   a request that the disk refuses is told on the console and tried again until it works; else it is
 *               the end of the run
 */
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "lib/string.h"
#include "lib/virtio_blk.h"
#include "request_server.h"
#include "requests.h"

const char guest_name[] = "log";

#define DISKS_MAX 2

static struct blk disks[DISKS_MAX];
static unsigned disk_count;
static uint64_t capacity; /* records of each disk */
static struct guest_log_record written, found __attribute__((aligned(512)));
static bool retrying;
static uint64_t told; /* the last record whose failure was printed */

static bool wait_for(struct blk *b)
{
    bool ok;

    while (blk_take(b, &ok) < 0)
        cpu_relax();
    return ok;
}

static uint64_t sector_of(uint64_t number)
{
    return (number - 1) % capacity * (sizeof(struct guest_log_record) / BLK_SECTOR);
}

static void fail(enum guest_error error, unsigned disk, uint64_t number, const char *what)
{
    guest_fail(error, sector_of(number), disk, number);
    print("%s disk=%u record=%u\n", what, (uint64_t)disk, number);
}

/* The disk said no. */
static void refused(unsigned disk, uint64_t number, const char *what)
{
    if (!retrying)
        fail(GUEST_ERROR_DISK, disk, number, what);
    else if (told != number)
        print("%s disk=%u record=%u, again\n", what, (uint64_t)disk, number);
    told = number;
}

static bool read_last(unsigned disk)
{
    memset(&found, 0xee, sizeof(found));
    blk_start(&disks[disk], 0, BLK_READ, sector_of(written.number), &found, sizeof(found));
    return wait_for(&disks[disk]);
}

/* The record that was written last is what the disk holds. */
static bool check_last(unsigned disk)
{
    if (!written.number)
        return true;
    while (!read_last(disk)) {
        refused(disk, written.number, "the read failed:");
        if (!retrying)
            return false;
    }
    for (unsigned i = 0; i < sizeof(found) / 8; i++) {
        if (((uint64_t *)&found)[i] == ((uint64_t *)&written)[i])
            continue;
        fail(GUEST_ERROR_DATA, disk, written.number, "not what was written:");
        return false;
    }
    return true;
}

static void make_record(const struct guest_message *m)
{
    written = (struct guest_log_record){
        .magic = GUEST_LOG_MAGIC,
        .number = m->counter,
        .client = m->client,
        .seq = m->seq,
        .nonce = m->nonce,
        .chain = m->chain,
        .boot_id = status.boot_id,
    };
    for (unsigned i = 0; i < sizeof(written.filling) / 8; i++)
        written.filling[i] = guest_log_filling(m->counter, i);
    written.check = guest_log_check(&written);
}

/* All disks at once; a flush covers what has completed. */
static bool on_all(enum blk_type type)
{
    uint64_t number = written.number;
    bool ok = true;

    for (unsigned i = 0; i < disk_count; i++)
        blk_start(&disks[i], 0, type, type == BLK_FLUSH ? 0 : sector_of(number), &written,
                  type == BLK_FLUSH ? 0 : sizeof(written));
    for (unsigned i = 0; i < disk_count; i++) {
        if (wait_for(&disks[i]))
            continue;
        refused(i, number, type == BLK_FLUSH ? "the flush failed:" : "the write failed:");
        ok = false;
    }
    return ok;
}

static bool persist(const struct guest_message *m)
{
    for (unsigned i = 0; i < disk_count; i++)
        if (!check_last(i))
            return false;
    make_record(m);
    while (!(on_all(BLK_WRITE) && on_all(BLK_FLUSH)))
        if (!retrying)
            return false;
    return true;
}

static bool answer(struct guest_message *m)
{
    uint64_t before = status.count.counter;

    if (m->op != GUEST_OP_COUNT)
        return false;
    requests_answer(m, status.errors != 0);
    if (status.count.counter != before && !persist(m))
        m->answer = GUEST_ANSWER_FAILED;
    return true;
}

static bool open_disks(void)
{
    uint64_t smallest = ~0ull;

    while (disk_count < DISKS_MAX && blk_open(&disks[disk_count], disk_count, -1, false, BLK_F_FLUSH)) {
        if (disks[disk_count].sectors < smallest)
            smallest = disks[disk_count].sectors;
        disk_count++;
    }
    capacity = smallest * BLK_SECTOR / sizeof(struct guest_log_record);
    return disk_count > 0 && capacity > 1;
}

void guest_main(void)
{
    retrying = option_number("retry", 0);
    request_server_start();
    if (!open_disks() || !service_start(answer, -1, false)) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("log: give it a virtio-net, ip= and one or two virtio-blk disks\n");
        return;
    }
    if (!guest_quiet())
        print("log: running on %u disks\n", (uint64_t)disk_count);
    request_server_run();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor under a checkpoint's pause: how long memcpy takes for N scattered pages of a memory file of MIB
 * mebibytes into memory that was touched before.
 *
 *     copy_floor MIB PAGES ROUNDS      ->  "floor_us MIN MEDIAN"
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: copy_floor MIB PAGES ROUNDS\n");
        return 2;
    }
    size_t ram_pages = strtoul(argv[1], NULL, 10) * 256, pages = strtoul(argv[2], NULL, 10),
           rounds = strtoul(argv[3], NULL, 10);
    uint64_t *times = calloc(rounds, sizeof(*times));
    uint8_t *ram = mmap(NULL, ram_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint8_t *staging = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t random = 88172645463325252u;

    if (!times || ram == MAP_FAILED || staging == MAP_FAILED || !pages || !rounds)
        return 1;
    memset(ram, 1, ram_pages * PAGE);
    memset(staging, 1, pages * PAGE);
    for (size_t r = 0; r < rounds; r++) {
        /* Other pages each round, as other pages are dirty each epoch: in ascending order, as a bitmap gives
         * them. */
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t offset = random % ram_pages, step = ram_pages / pages ? ram_pages / pages : 1;
        uint64_t begin = now_ns();
        for (size_t i = 0; i < pages; i++)
            memcpy(staging + i * PAGE, ram + (offset + i * step) % ram_pages * PAGE, PAGE);
        times[r] = now_ns() - begin;
    }
    qsort(times, rounds, sizeof(*times), by_value);
    printf("floor_us %.1f %.1f\n", times[0] / 1e3, times[rounds / 2] / 1e3);
    return 0;
}

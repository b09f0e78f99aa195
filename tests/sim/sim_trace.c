/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The history of a run: hashed whole, its end kept for the report of a failure. */
#include "sim_runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KEPT 400
#define LINE 240

static char kept[KEPT][LINE];
static uint64_t count;
static uint64_t hash = UINT64_C(0xcbf29ce484222325);
static bool print;
static const char *title = "";

void sim_trace(const char *fmt, ...)
{
    char *line = kept[count++ % KEPT];
    va_list ap;
    int n;

    n = snprintf(line, LINE, "%10.6f %-6s ", (double)sim_now() / 1e9, sim_host_name(sim_host_current()));
    va_start(ap, fmt);
    vsnprintf(line + n, LINE - (size_t)n, fmt, ap);
    va_end(ap);
    for (const char *p = line; *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    if (print)
        puts(line);
}

void sim_trace_print(bool on)
{
    print = on;
}

uint64_t sim_trace_hash(void)
{
    return hash;
}

void sim_set_title(const char *t)
{
    title = t;
}

void sim_fail(const char *fmt, ...)
{
    uint64_t first = count > KEPT ? count - KEPT : 0;
    va_list ap;

    for (uint64_t i = first; i < count && !print; i++)
        printf("    %s\n", kept[i % KEPT]);
    printf("  who waits for what:\n");
    sim_dump_tasks();
    printf("%sFAILED at %.6f: ", title, (double)sim_now() / 1e9);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "control/run_dir.h"

#include <stdio.h>
#include <string.h>

static const char *text(json_t *s, const char *key)
{
    const char *value = json_string_value(json_object_get(s, key));

    return value ? value : "";
}

static long long number(json_t *s, const char *key)
{
    return json_integer_value(json_object_get(s, key));
}

static void print_sync(json_t *s, json_t *disks)
{
    long long left = number(disks, "sync_left"), rate = number(disks, "rate");

    if (left)
        printf("  %-14s disks: %lld MiB left, %lld MiB/s, about %lld s\n", "sync", left >> 20, rate >> 20,
               number(disks, "eta_s"));
    else
        printf("  %-14s %lld pages of memory left\n", "sync", number(s, "sync_pages_left"));
}

static void print_summary(json_t *checkpoint, const char *key, const char *what)
{
    json_t *s = json_object_get(checkpoint, key);

    printf("  %-14s p50 %lld, p99 %lld, max %lld\n", what, number(s, "p50"), number(s, "p99"),
           number(s, "max"));
}

static void print_indented(const char *lines)
{
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        printf("    %.*s\n", (int)n, lines);
        lines += n + (lines[n] == '\n');
    }
}

static void print_status(json_t *s)
{
    json_t *c = json_object_get(s, "checkpoint");

    printf("%s: %s, %s, guest %s\n", text(s, "name"), text(s, "role"), text(s, "state"),
           text(s, "run_state"));
    printf("  %-14s %lld vCPUs, %lld MiB\n", "machine", number(s, "vcpus"), number(s, "memory") >> 20);
    if (text(s, "pair")[0]) {
        printf("  %-14s %s, generation %lld, epoch %lld\n", "pair", text(s, "pair"), number(s, "generation"),
               number(s, "epoch"));
        printf("  %-14s %s, arbiter %s\n", "peer", text(s, "peer"), text(s, "arbiter"));
    }
    if (text(s, "listen")[0] || !strcmp(text(s, "role"), "backup"))
        printf("  %-14s %s\n", "listens at",
               text(s, "listen")[0] ? text(s, "listen") : "nothing (perdure listen)");
    if (!strcmp(text(s, "state"), "SYNCING") || !strcmp(text(s, "state"), "MIGRATING"))
        print_sync(s, json_object_get(s, "disks"));
    if (number(c, "count")) {
        printf("  %-14s %lld, %lld in the last second, %lld bytes each\n", "checkpoints", number(c, "count"),
               number(c, "rate_hz"), number(c, "bytes_per_epoch"));
        print_summary(c, "pause_us", "pause us");
        print_summary(c, "ack_us", "ack us");
        print_summary(c, "output_held_us", "held us");
        print_summary(c, "dirty_pages", "dirty pages");
    }
    if (text(s, "last_error")[0])
        printf("  %-14s %s\n", "last error", text(s, "last_error"));
    if (text(s, "report")[0]) {
        printf("  last change of role:\n");
        print_indented(text(s, "report"));
    }
}

struct show {
    bool json;
    int status;
};

static void show_one(void *opaque, const char *name)
{
    struct show *show = opaque;
    Error *err = NULL;
    json_t *s = client_command(name, "perdure-status", NULL, &err);

    if (!s) {
        show->status = client_fail("status", err);
        return;
    }
    if (show->json) {
        json_dumpf(s, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_status(s);
    }
    json_decref(s);
}

int cmd_status(int argc, char **argv)
{
    char name[64] = "";
    struct show show = {0};
    const struct option_spec specs[] = {
        {"json", NULL, OPTION_FLAG, &show.json, 0, "for programs"},
        {"[NAME]", NULL, OPTION_STRING, name, sizeof(name), "the machine; without it, all of this host"},
        {0},
    };
    int status = options_begin("Role, state and figures of one machine, or of all.", specs, argc, argv);

    if (status >= 0)
        return status;
    if (name[0])
        show_one(&show, name);
    else
        run_dir_each(show_one, &show);
    return show.status;
}

static void list_one(void *opaque, const char *name)
{
    json_t *s = client_command(name, "perdure-status", NULL, NULL);

    (void)opaque;
    if (!s) {
        printf("%-20s %-8s %-12s %s\n", name, "-", "-", "no answer");
        return;
    }
    printf("%-20s %-8s %-12s %s\n", name, text(s, "role"), text(s, "state"), text(s, "run_state"));
    json_decref(s);
}

int cmd_list(int argc, char **argv)
{
    const struct option_spec specs[] = {{0}};
    int status =
        options_begin("The virtual machines of this host: name, role, state, guest.", specs, argc, argv);

    if (status >= 0)
        return status;
    run_dir_each(list_one, NULL);
    return 0;
}

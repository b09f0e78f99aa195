/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_NS (100 * NS_PER_MS)
#define ARBITER_NS  (12 * NS_PER_S)
#define STANDBY_NS  (600 * NS_PER_S) /* all memory may have to be sent again */

struct migrate_options {
    char name[64], to[256], backup[256], arbiter[1100], psk[1024], on_slow[16], compress[8];
    int64_t downtime, deadline, max_bandwidth; /* negative, and on_slow "": as it was told before */
    int64_t timeout, channels;                 /* channels negative: by the processors */
    bool insecure, no_wait, postcopy;
};

#define NOTHING_SAID .downtime = -1, .deadline = -1, .max_bandwidth = -1
#define ON_SLOW_HELP                                                                                         \
    "when the guest changes its memory faster than the link carries it: throttle (it is slowed down), "      \
    "pause "                                                                                                 \
    "(it stands still for as long as the rest takes), postcopy (it runs there, and the rest follows) or "    \
    "cancel (throttle)"

/* What of it was said. */
static void add_how(json_t *args, const struct migrate_options *o)
{
    if (o->downtime >= 0)
        json_object_set_new(args, "downtime-us", json_integer(o->downtime / NS_PER_US));
    if (o->deadline >= 0)
        json_object_set_new(args, "deadline-us", json_integer(o->deadline / NS_PER_US));
    if (o->max_bandwidth >= 0)
        json_object_set_new(args, "max-bandwidth", json_integer(o->max_bandwidth));
    if (o->on_slow[0])
        json_object_set_new(args, "on-slow", json_string(o->on_slow));
}

static json_t *arguments(const struct migrate_options *o)
{
    json_t *args = json_pack("{s:s, s:I, s:s, s:b, s:b, s:s}", "uri", o->to, "timeout-us",
                             (json_int_t)(o->timeout / NS_PER_US), "arbiter", o->arbiter, "insecure",
                             o->insecure, "postcopy", o->postcopy, "compress", o->compress);

    add_how(args, o);
    if (o->channels >= 0)
        json_object_set_new(args, "channels", json_integer(o->channels));
    if (o->psk[0])
        client_set_path(args, "psk", o->psk);
    return args;
}

static int64_t number(json_t *from, const char *name)
{
    return json_integer_value(json_object_get(from, name));
}

/* It has room in 80 columns. What the guest changes is known after the first pass, and the time to go if that is less
 * than what is sent. */
static void show_memory(json_t *m)
{
    json_t *ram = json_object_get(m, "ram");
    int64_t left = number(ram, "remaining"), rate = number(ram, "bandwidth");
    int64_t dirty = number(ram, "dirty-rate"), throttle = number(m, "cpu-throttle-percentage");

    fprintf(stderr, "\r%" PRId64 " MiB left, %" PRId64 " MiB/s", left >> 20, rate >> 20);
    if (dirty)
        fprintf(stderr, ", dirtied %" PRId64 " MiB/s", dirty >> 20);
    if (throttle)
        fprintf(stderr, ", slowed %" PRId64 " %%", throttle);
    else
        fprintf(stderr, ", pass %" PRId64, number(ram, "passes") + 1);
    if (rate > dirty)
        fprintf(stderr, ", ~%" PRId64 " s", left / (rate - dirty) + 1);
    fprintf(stderr, ", downtime %" PRId64 " ms\033[K", number(m, "expected-downtime"));
}

static void show_postcopy(const char *status, json_t *m)
{
    json_t *ram = json_object_get(m, "ram");

    fprintf(stderr, "\rit runs there%s: %" PRId64 " MiB to follow, %" PRId64 " pages asked for\033[K",
            strcmp(status, "postcopy-paused") ? "" : " (the link is broken)", number(ram, "remaining") >> 20,
            number(ram, "postcopy-requests"));
}

static void show_progress(const char *status, json_t *m)
{
    int64_t disks = number(m, "disk-remaining");

    if (!strncmp(status, "postcopy-", 9))
        show_postcopy(status, m);
    else if (disks)
        fprintf(stderr, "\r%" PRId64 " MiB of disks left to compare\033[K", disks >> 20);
    else
        show_memory(m);
}

static void show_result(json_t *m)
{
    json_t *parts = json_object_get(m, "downtime-parts-us"), *ram = json_object_get(m, "ram");
    int64_t asked = number(ram, "postcopy-requests");

    printf("moved in %.2f s, %" PRId64
           " MiB sent; downtime %.1f ms (pause %.1f, send %.1f, load %.1f, start %.1f)",
           (double)number(m, "total-time") / 1e3, number(ram, "transferred") >> 20,
           (double)number(m, "downtime-us") / 1e3, (double)number(parts, "pause") / 1e3,
           (double)number(parts, "send") / 1e3, (double)number(parts, "load") / 1e3,
           (double)number(parts, "start") / 1e3);
    if (asked)
        printf("; %" PRId64 " pages were waited for", asked);
    printf("\n");
}

/* True: it was moved. */
static bool judge(const char *name, const char *status, json_t *m, Error **errp)
{
    if (!strcmp(status, "completed")) {
        show_result(m);
        return true;
    }
    if (!strcmp(status, "device"))
        error_setg(errp,
                   "the link broke when the destination had been told to run, and the arbiter does not say "
                   "who goes on; if "
                   "you are sure that the guest does not run there: perdure migrate-cancel %s --force",
                   name);
    else if (!strcmp(status, "cancelled"))
        error_setg(errp, "it was cancelled: the machine runs on here");
    else
        error_setg(errp, "%s", json_string_value(json_object_get(m, "error-desc")));
    return false;
}

/* An arbiter gets the time that it may need for its answer. */
static bool is_under_way(const char *status, int64_t *asks_until)
{
    if (strcmp(status, "device"))
        return !strcmp(status, "active") || !strcmp(status, "setup") || !strncmp(status, "postcopy-", 9);
    if (!*asks_until)
        *asks_until = clock_now() + ARBITER_NS;
    return clock_now() < *asks_until;
}

/* The machine's process ends when its guest runs elsewhere, but not before this was told. */
static bool wait_moved(Client *c, const char *name, Error **errp)
{
    bool tty = isatty(STDERR_FILENO), moved;
    int64_t asks_until = 0;
    char status[32];
    json_t *m;

    while ((m = client_execute(c, "query-migrate", NULL, errp))) {
        snprintf(status, sizeof(status), "%s", json_string_value(json_object_get(m, "status")));
        if (tty)
            show_progress(status, m);
        if (!is_under_way(status, &asks_until))
            break;
        json_decref(m);
        task_sleep_until(clock_now() + PROGRESS_NS);
    }
    if (tty)
        fputc('\n', stderr);
    moved = m && judge(name, status, m, errp);
    json_decref(m);
    return moved;
}

static bool execute(Client *c, const char *command, json_t *args, Error **errp)
{
    json_t *result = client_execute(c, command, args, errp);

    json_decref(result);
    return result;
}

static bool migrate_guest(Client *c, const struct migrate_options *o, Error **errp)
{
    return execute(c, "migrate", arguments(o), errp) && (o->no_wait || wait_moved(c, o->name, errp));
}

/* The process may end when that is done: so this is asked often. */
static bool wait_backup_moved(Client *c, Error **errp)
{
    char status[32] = "active";
    json_t *m = NULL;

    while (!strcmp(status, "active") || !strcmp(status, "setup")) {
        json_decref(m);
        task_sleep_until(clock_now() + PROGRESS_NS / 5);
        m = client_execute(c, "query-migrate", NULL, errp);
        if (!m)
            return false;
        snprintf(status, sizeof(status), "%s", json_string_value(json_object_get(m, "status")));
    }
    if (!strcmp(status, "cancelled"))
        error_setg(errp, "it was cancelled: the backup stays");
    else if (strcmp(status, "completed"))
        error_setg(errp, "%s", json_string_value(json_object_get(m, "error-desc")));
    json_decref(m);
    return !strcmp(status, "completed");
}

static bool move_backup(Client *c, const char *to, json_t *more, bool wait, Error **errp)
{
    json_object_set_new(more, "uri", json_string(to));
    return execute(c, "migrate-backup", more, errp) && (!wait || wait_backup_moved(c, errp));
}

/* What is said of a live migration has no meaning here. */
static bool check_protected(const struct migrate_options *o, Error **errp)
{
    bool more = o->postcopy || o->downtime >= 0 || o->deadline >= 0 || o->max_bandwidth >= 0 ||
                o->channels >= 0 || o->on_slow[0] || o->no_wait || o->psk[0] || o->insecure ||
                strcmp(o->arbiter, "manual") || strcmp(o->compress, "auto") || o->timeout != NS_PER_S;

    if (more)
        error_setg(
            errp,
            "the machine is protected, and moves by its protection: --to and --backup are all that can be "
            "said (the key is the one of `protect`)");
    return !more;
}

/* *ret_wait: the sync that may follow a swap goes on. */
static bool is_standby(Client *c, bool *ret_wait, Error **errp)
{
    json_t *s = client_execute(c, "perdure-status", NULL, errp);
    const char *state = json_string_value(json_object_get(s, "state"));
    const char *role = json_string_value(json_object_get(s, "role"));
    bool is = s && !strcmp(state, "STANDBY");

    *ret_wait = s && !is && !strcmp(role, "backup") && strcmp(state, "ASKING");
    if (s && !is && !*ret_wait)
        error_setg(errp, "this side is %s, %s now, not the backup", role, state);
    json_decref(s);
    return is;
}

/* After a swap this side is the backup, a moment later. */
static bool wait_standby(Client *c, Error **errp)
{
    int64_t until = clock_now() + STANDBY_NS;
    bool wait = true, is = false;

    while (!is && wait && clock_now() < until) {
        is = is_standby(c, &wait, errp);
        if (wait)
            task_sleep_until(clock_now() + PROGRESS_NS / 5);
    }
    if (!is && wait)
        error_setg(errp, "this side did not become the backup");
    return is;
}

/* The destination becomes the backup, then the primary; then what was the backup is it again. The guest is protected all the
 * time, and each step leaves it so should the next one fail. */
static bool migrate_protected(Client *c, const struct migrate_options *o, const char *backup, Error **errp)
{
    if (!check_protected(o, errp))
        return false;
    if (!move_backup(c, o->to, json_object(), true, errp))
        return false;
    printf("%s is the backup\n", o->to);
    if (!execute(c, "perdure-swap", NULL, errp)) {
        error_prepend(errp, "the guest runs here, with %s as its backup: ", o->to);
        return false;
    }
    printf("the guest runs there, with this side as its backup\n");
    if (!wait_standby(c, errp) || !move_backup(c, backup, json_object(), true, errp)) {
        error_prepend(errp, "the guest runs at %s, with this side as its backup: ", o->to);
        return false;
    }
    printf("moved; %s is its backup again\n", backup);
    return true;
}

static bool migrate(const struct migrate_options *o, Error **errp)
{
    Client *c = client_open(o->name, errp);
    json_t *s = c ? client_execute(c, "perdure-status", NULL, errp) : NULL;
    const char *state = json_string_value(json_object_get(s, "state"));
    bool ok = false;

    if (s && state && !strcmp(state, "PROTECTED"))
        ok = migrate_protected(c, o, o->backup[0] ? o->backup : json_string_value(json_object_get(s, "peer")),
                               errp);
    else if (s)
        ok = migrate_guest(c, o, errp);
    json_decref(s);
    client_close(c);
    return ok;
}

int cmd_migrate(int argc, char **argv)
{
    struct migrate_options o = {
        .arbiter = "manual", .compress = "auto", NOTHING_SAID, .timeout = NS_PER_S, .channels = -1};
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, o.name, sizeof(o.name), "the running machine"},
        {"to", "ADDRESS", OPTION_STRING, o.to, sizeof(o.to), "where perdure standby listens (required)"},
        {"backup", "ADDRESS", OPTION_STRING, o.backup, sizeof(o.backup),
         "of a protected machine: where its backup listens, if that is not where it was protected to"},
        {"downtime", "TIME", OPTION_DURATION, &o.downtime, 0, "so long may the guest stand still (20ms)"},
        {"deadline", "TIME", OPTION_DURATION, &o.deadline, 0, "when all must be over (as long as it takes)"},
        {"max-bandwidth", "SIZE", OPTION_SIZE, &o.max_bandwidth, 0,
         "so much a second, until the guest stands still (0: what the link carries)"},
        {"on-slow", "WHAT", OPTION_STRING, o.on_slow, sizeof(o.on_slow), ON_SLOW_HELP},
        {"postcopy", NULL, OPTION_FLAG, &o.postcopy, 0,
         "send all memory once; then the guest runs there, and the rest follows"},
        {"compress", "WHAT", OPTION_STRING, o.compress, sizeof(o.compress),
         "pack pages (LZ4): auto, when the link is slow; on; off (auto)"},
        {"channels", "N", OPTION_INT, &o.channels, 0,
         "so many connections carry memory, 1 to 16 (4; 1 where there is one processor)"},
        {"timeout", "TIME", OPTION_DURATION, &o.timeout, 0, "silence of the peer that counts (1s)"},
        {"arbiter", "KIND", OPTION_STRING, o.arbiter, sizeof(o.arbiter),
         "who decides when the link breaks at the switch: manual, file:DIR, command:PATH (manual)"},
        {"psk", "FILE", OPTION_STRING, o.psk, sizeof(o.psk), "the pair's key (perdure keygen)"},
        {"insecure", NULL, OPTION_FLAG, &o.insecure, 0, "connect to another host without a key"},
        {"no-wait", NULL, OPTION_FLAG, &o.no_wait, 0, "return once the destination has accepted"},
        {0},
    };
    Error *err = NULL;
    int status = options_begin("Moves a running machine to another host.", specs, argc, argv);

    if (status >= 0)
        return status;
    if (!o.to[0]) {
        fprintf(stderr, "perdure migrate: --to is missing: where `perdure standby` listens\n");
        return 2;
    }
    return migrate(&o, &err) ? 0 : client_fail(argv[0], err);
}

int cmd_migrate_set(int argc, char **argv)
{
    struct migrate_options o = {NOTHING_SAID};
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, o.name, sizeof(o.name), "the machine"},
        {"downtime", "TIME", OPTION_DURATION, &o.downtime, 0, "so long may the guest stand still (20ms)"},
        {"deadline", "TIME", OPTION_DURATION, &o.deadline, 0, "when all must be over (as long as it takes)"},
        {"max-bandwidth", "SIZE", OPTION_SIZE, &o.max_bandwidth, 0,
         "so much a second, until the guest stands still (0: what the link carries)"},
        {"on-slow", "WHAT", OPTION_STRING, o.on_slow, sizeof(o.on_slow), ON_SLOW_HELP},
        {0},
    };
    int status =
        options_begin("Says how a machine is moved: the next time, or on its way.", specs, argc, argv);
    json_t *args = json_object(), *result;
    Error *err = NULL;

    if (status >= 0) {
        json_decref(args);
        return status;
    }
    add_how(args, &o);
    result = client_command(o.name, "migrate-set-parameters", args, &err);
    if (!result)
        return client_fail(argv[0], err);
    json_decref(result);
    return 0;
}

int cmd_migrate_recover(int argc, char **argv)
{
    char name[64] = "", to[256] = "";
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, name, sizeof(name), "the machine, at the source"},
        {"to", "ADDRESS", OPTION_STRING, to, sizeof(to), "where the destination listens now (where it did)"},
        {0},
    };
    Error *err = NULL;
    json_t *result;
    int status = options_begin(
        "In postcopy, or when it is not known whether the guest runs at the destination: says that it "
        "does, and makes the broken link anew, now.",
        specs, argc, argv);

    if (status >= 0)
        return status;
    result = client_command(name, "migrate-recover", to[0] ? json_pack("{s:s}", "uri", to) : NULL, &err);
    json_decref(result);
    return result ? 0 : client_fail(argv[0], err);
}

int cmd_migrate_backup(int argc, char **argv)
{
    struct migrate_options o = {0};
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, o.name, sizeof(o.name), "the machine, at its backup or at its primary"},
        {"to", "ADDRESS", OPTION_STRING, o.to, sizeof(o.to),
         "where another perdure standby listens, reachable from both hosts (required)"},
        {"psk", "FILE", OPTION_STRING, o.psk, sizeof(o.psk),
         "at the backup: the key (the one that it listens with)"},
        {"insecure", NULL, OPTION_FLAG, &o.insecure, 0,
         "at the backup: connect to another host without a key"},
        {"no-wait", NULL, OPTION_FLAG, &o.no_wait, 0, "return once the move has begun"},
        {0},
    };
    Error *err = NULL;
    Client *c;
    json_t *args;
    int status =
        options_begin("Moves a machine's backup to another host; protection goes on.", specs, argc, argv);
    bool ok;

    if (status >= 0)
        return status;
    if (!o.to[0]) {
        fprintf(stderr, "perdure migrate-backup: --to is missing: where another `perdure standby` listens\n");
        return 2;
    }
    c = client_open(o.name, &err);
    if (!c)
        return client_fail(argv[0], err);
    args = json_pack("{s:b}", "insecure", o.insecure);
    if (o.psk[0])
        client_set_path(args, "psk", o.psk);
    ok = move_backup(c, o.to, args, !o.no_wait, &err);
    client_close(c);
    return ok ? 0 : client_fail(argv[0], err);
}

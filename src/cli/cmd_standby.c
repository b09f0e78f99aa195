/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/dispatcher.h"
#include "cli/machine_options.h"
#include "cli/options.h"
#include "control/listen.h"
#include "control/run_dir.h"

#include <stdio.h>
#include <string.h>

static bool check(const struct vm_options *o, Error **errp)
{
    if (!o->machine.name[0] || !o->listen.address[0]) {
        error_setg(errp, "--%s is missing", o->machine.name[0] ? "listen" : "name");
        return false;
    }
    return run_dir_check_name(o->machine.name, errp) && listen_check(&o->listen, errp);
}

/* With --any the file is not this process's own: it has a section for each machine. */
static int begin(const char *what, const struct option_spec *specs, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--any"))
            return options_begin(what, specs, argc, argv);
    return options_begin_with_config(what, specs, argc, argv);
}

static int dispatch(const struct vm_options *o, const char *config)
{
    Error *err = NULL;

    if (o->listen.address[0] && strcmp(o->listen.address, "shared") && config[0] && !o->machine.name[0])
        return dispatcher_run(o->listen.address, config, &err) ? 0 : client_fail("standby", err);
    fprintf(stderr,
            "perdure standby: --any goes with --listen ADDRESS and --config FILE, and without --name\n");
    return 2;
}

int cmd_standby(int argc, char **argv)
{
    char config[1024] = "";
    bool any = false, dirty_ring = false;
    struct vm_options o = {.standby = true, .machine.console = "null"};
    struct machine_config *c = &o.machine;
    struct option_each disk = {machine_option_disk, c}, net = {machine_option_net, c},
                       channel = {machine_option_channel, c};
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, c->name, sizeof(c->name),
         "the machine's name, as at the primary (required)"},
        {"listen", "ADDRESS", OPTION_STRING, o.listen.address, sizeof(o.listen.address),
         "tcp:HOST:PORT, unix:PATH, fd:N or shared (required)"},
        {"any", NULL, OPTION_FLAG, &any, 0, "listen for all machines of --config, each with its own process"},
        {"config", "FILE", OPTION_STRING, config, sizeof(config),
         "options from a file, one a line (perdure.conf(5))"},
        {"idle", "TIME", OPTION_DURATION, &o.idle_ns, 0, "end when no primary came for so long"},
        {"disk", "id=I,path=F", OPTION_EACH, &disk, 0,
         "what the primary's disk I is on this host; also shared=on"},
        {"net", "id=I,tap=T", OPTION_EACH, &net, 0, "what the primary's NIC I is on this host"},
        {"channel", "id=I,unix=F", OPTION_EACH, &channel, 0, "what the primary's channel I is on this host"},
        {"console", "WHERE", OPTION_STRING, c->console, sizeof(c->console),
         "stdio, file:PATH, unix:PATH or null (null)"},
        {"dirty-ring", NULL, OPTION_FLAG, &dirty_ring, 0, "as for run, for the machine that is made here"},
        {"psk", "FILE", OPTION_STRING, o.listen.psk, sizeof(o.listen.psk), "the pair's key (perdure keygen)"},
        {"force-stale", NULL, OPTION_FLAG, &o.force_stale, 0,
         "overwrite disks although they may be the newest copy"},
        {"insecure", NULL, OPTION_FLAG, &o.listen.insecure, 0, "listen to other hosts without a key"},
        {"arbiter", "KIND", OPTION_STRING, o.listen.arbiter, sizeof(o.listen.arbiter),
         "accept only this arbiter from a primary (any; with --insecure: manual)"},
        {0},
    };
    Error *err = NULL;
    int status;
    Vm *vm;

    status =
        begin("Waits for a primary, keeps its checkpoints, and takes over when it dies.", specs, argc, argv);
    if (status >= 0)
        return status;
    if (any)
        return dispatch(&o, config);
    if (!check(&o, &err)) {
        client_fail(argv[0], err);
        return 2;
    }
    c->dirty_ring = dirty_ring ? MACHINE_DIRTY_RING_MAX : 0;
    vm = vm_new(&o, &err);
    status = vm ? vm_run(vm) : client_fail(argv[0], err);
    vm_free(vm);
    return status;
}

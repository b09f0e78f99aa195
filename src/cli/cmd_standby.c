/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
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

int cmd_standby(int argc, char **argv)
{
    struct vm_options o = {.standby = true, .machine.console = "null"};
    struct machine_config *c = &o.machine;
    struct option_each disk = {machine_option_disk, c}, net = {machine_option_net, c},
                       channel = {machine_option_channel, c};
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, c->name, sizeof(c->name),
         "the machine's name, as at the primary (required)"},
        {"listen", "ADDRESS", OPTION_STRING, o.listen.address, sizeof(o.listen.address),
         "tcp:HOST:PORT or unix:PATH (required)"},
        {"disk", "id=I,path=F", OPTION_EACH, &disk, 0, "what the primary's disk I is on this host"},
        {"net", "id=I,tap=T", OPTION_EACH, &net, 0, "what the primary's NIC I is on this host"},
        {"channel", "id=I,unix=F", OPTION_EACH, &channel, 0, "what the primary's channel I is on this host"},
        {"console", "WHERE", OPTION_STRING, c->console, sizeof(c->console),
         "stdio, file:PATH, unix:PATH or null (null)"},
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

    status = options_begin("Waits for a primary, keeps its checkpoints, and takes over when it dies.", specs,
                           argc, argv);
    if (status >= 0)
        return status;
    if (!check(&o, &err)) {
        client_fail(argv[0], err);
        return 2;
    }
    vm = vm_new(&o, &err);
    status = vm ? vm_run(vm) : client_fail(argv[0], err);
    vm_free(vm);
    return status;
}

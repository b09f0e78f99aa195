/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/machine_options.h"
#include "cli/options.h"
#include "control/run_dir.h"
#include "control/vm.h"

#include <stdio.h>
#include <string.h>

static bool check(const struct vm_options *o, Error **errp)
{
    if (!o->machine.name[0] || !o->listen[0]) {
        error_setg(errp, "--%s is missing", o->machine.name[0] ? "listen" : "name");
        return false;
    }
    if (!run_dir_check_name(o->machine.name, errp))
        return false;
    if (!channel_address_is_local(o->listen) && !o->psk[0] && !o->insecure) {
        error_setg(
            errp,
            "--listen %s is open to other hosts: give --psk FILE (perdure keygen makes one), or --insecure",
            o->listen);
        return false;
    }
    return true;
}

int cmd_standby(int argc, char **argv)
{
    struct vm_options o = {.standby = true, .machine.console = "null"};
    struct machine_config *c = &o.machine;
    struct option_each disk = {machine_option_disk, c}, net = {machine_option_net, c};
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, c->name, sizeof(c->name),
         "the machine's name, as at the primary (required)"},
        {"listen", "ADDRESS", OPTION_STRING, o.listen, sizeof(o.listen),
         "tcp:HOST:PORT or unix:PATH (required)"},
        {"disk", "id=I,path=F", OPTION_EACH, &disk, 0, "what the primary's disk I is on this host"},
        {"net", "id=I,tap=T", OPTION_EACH, &net, 0, "what the primary's NIC I is on this host"},
        {"console", "WHERE", OPTION_STRING, c->console, sizeof(c->console),
         "stdio, file:PATH, unix:PATH or null (null)"},
        {"psk", "FILE", OPTION_STRING, o.psk, sizeof(o.psk), "the pair's key (perdure keygen)"},
        {"insecure", NULL, OPTION_FLAG, &o.insecure, 0, "listen to other hosts without a key"},
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

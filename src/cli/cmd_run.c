/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/machine_options.h"
#include "cli/options.h"
#include "control/listen.h"
#include "control/run_dir.h"

#include <stdio.h>
#include <string.h>

struct run_options {
    struct vm_options vm;
    int64_t cpus, memory;
    char kernel[1024], initrd[1024], config[1024];
    bool dirty_ring;
};

static bool known_model(const char *name)
{
    return !strcmp(name, "host") || !strcmp(name, "v2") || !strcmp(name, "v3") || !strcmp(name, "v4");
}

static bool check_machine(struct run_options *o, Error **errp)
{
    struct machine_config *c = &o->vm.machine;

    if (!c->name[0]) {
        error_setg(errp, "--name is missing");
        return false;
    }
    if (!run_dir_check_name(c->name, errp))
        return false;
    if (o->cpus < 1 || o->cpus > MACHINE_CPUS_MAX) {
        error_setg(errp, "--cpus: %d is not from 1 to %d", (int)o->cpus, MACHINE_CPUS_MAX);
        return false;
    }
    if (o->memory < 16 * 1024 * 1024 || o->memory % (1024 * 1024)) {
        error_setg(errp, "--memory: give whole megabytes, at least 16M");
        return false;
    }
    if (!known_model(c->cpu_model)) {
        error_setg(errp, "--cpu: '%s' is none of host, v2, v3, v4", c->cpu_model);
        return false;
    }
    if (!o->kernel[0] == !o->vm.restore[0]) {
        error_setg(errp, "give either --kernel (to boot) or --restore (to go on from a state file)");
        return false;
    }
    if (o->initrd[0] && !o->kernel[0]) {
        error_setg(errp, "--initrd goes with --kernel");
        return false;
    }
    c->cpus = o->cpus;
    c->memory = o->memory;
    c->dirty_ring = o->dirty_ring ? MACHINE_DIRTY_RING_MAX : 0;
    return !o->vm.listen.address[0] || listen_check(&o->vm.listen, errp);
}

static bool load_files(struct run_options *o, Error **errp)
{
    struct machine_config *c = &o->vm.machine;

    return (!o->kernel[0] || machine_option_kernel(o->kernel, &c->kernel, &c->kernel_size, errp)) &&
           (!o->initrd[0] || machine_option_file("--initrd", o->initrd, &c->initrd, &c->initrd_size, errp));
}

static int run(struct run_options *o, const char *command)
{
    Error *err = NULL;
    int status;
    Vm *vm;

    if (!check_machine(o, &err)) {
        client_fail(command, err);
        return 2;
    }
    machine_options_default_macs(&o->vm.machine);
    vm = load_files(o, &err) ? vm_new(&o->vm, &err) : NULL;
    status = vm ? vm_run(vm) : client_fail(command, err);
    vm_free(vm);
    machine_config_free(&o->vm.machine);
    return status;
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = {
        .cpus = 1, .memory = 256 * 1024 * 1024, .vm.machine = {.cpu_model = "host", .console = "stdio"}};
    struct machine_config *c = &o.vm.machine;
    struct option_each disk = {machine_option_disk, c}, net = {machine_option_net, c},
                       channel = {machine_option_channel, c};
    const struct option_spec specs[] = {
        {"name", "NAME", OPTION_STRING, c->name, sizeof(c->name), "the machine's name (required)"},
        {"config", "FILE", OPTION_STRING, o.config, sizeof(o.config),
         "options from a file, one a line (perdure.conf(5))"},
        {"cpus", "N", OPTION_INT, &o.cpus, 0, "vCPUs (1)"},
        {"memory", "SIZE", OPTION_SIZE, &o.memory, 0, "RAM: 512M, 1G (256M)"},
        {"kernel", "FILE", OPTION_STRING, o.kernel, sizeof(o.kernel),
         "bzImage, ELF with a PVH note, or builtin:count (the demo guest)"},
        {"initrd", "FILE", OPTION_STRING, o.initrd, sizeof(o.initrd), "initial RAM disk"},
        {"cmdline", "TEXT", OPTION_STRING, c->cmdline, sizeof(c->cmdline), "the kernel's command line"},
        {"cpu", "MODEL", OPTION_STRING, c->cpu_model, sizeof(c->cpu_model),
         "host, v2, v3 or v4: what both hosts of a pair have (host)"},
        {"dirty-ring", NULL, OPTION_FLAG, &o.dirty_ring, 0,
         "KVM says which vCPU writes: a migration that slows the guest slows only those"},
        {"disk", "path=F,id=I", OPTION_EACH, &disk, 0, "a disk; also format=raw, readonly=on, shared=on"},
        {"net", "tap=T,id=I", OPTION_EACH, &net, 0, "a NIC on a tap; bridge=B instead makes one; also mac=M"},
        {"channel", "unix=F,id=I", OPTION_EACH, &channel, 0,
         "a port of virtio-console as a socket here; also name=N, console=on"},
        {"console", "WHERE", OPTION_STRING, c->console, sizeof(c->console),
         "stdio, file:PATH, unix:PATH or null (stdio)"},
        {"restore", "FILE", OPTION_STRING, o.vm.restore, sizeof(o.vm.restore), "go on from this state file"},
        {"save-on-exit", "FILE", OPTION_STRING, o.vm.save_on_exit, sizeof(o.vm.save_on_exit),
         "write the whole state there when told to quit"},
        {"force-stale", NULL, OPTION_FLAG, &o.vm.force_stale, 0,
         "use disks although the other side may have a newer copy"},
        {"paused", NULL, OPTION_FLAG, &o.vm.paused, 0, "wait for perdure resume"},
        {"listen", "ADDRESS", OPTION_STRING, o.vm.listen.address, sizeof(o.vm.listen.address),
         "after a change of roles, be reachable there as a standby"},
        {"psk", "FILE", OPTION_STRING, o.vm.listen.psk, sizeof(o.vm.listen.psk), "key for --listen"},
        {"insecure", NULL, OPTION_FLAG, &o.vm.listen.insecure, 0, "--listen beyond this host without a key"},
        {"arbiter", "KIND", OPTION_STRING, o.vm.listen.arbiter, sizeof(o.vm.listen.arbiter),
         "with --listen: accept only this arbiter from a primary"},
        {0},
    };
    int status;

    status =
        options_begin_with_config("Boots a virtual machine and runs it until it ends.", specs, argc, argv);
    return status >= 0 ? status : run(&o, argv[0]);
}

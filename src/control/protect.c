/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/protect.h"
#include "base/log.h"
#include "base/task.h"
#include "control/peer_check.h"
#include "control/qmp_args.h"
#include "control/vm.h"
#include "net/console_gate.h"
#include "net/output_buffer.h"

struct protect_args {
    struct engine_params params;
    char psk[1024];
    bool insecure, check, unsafe_no_output_hold;
};

static bool parse_times(json_t *args, struct engine_params *p, Error **errp)
{
    int64_t verify = 0;

    if (!qmp_arg_int(args, "interval-us", 100, 60 * 1000000, &p->interval_ns, errp) ||
        !qmp_arg_int(args, "min-epoch-us", 0, 60 * 1000000, &p->min_epoch_ns, errp) ||
        !qmp_arg_int(args, "timeout-us", 10000, 3600 * INT64_C(1000000), &p->timeout_ns, errp) ||
        !qmp_arg_int(args, "verify", 0, UINT32_MAX, &verify, errp))
        return false;
    p->interval_ns *= NS_PER_US;
    p->min_epoch_ns *= NS_PER_US;
    p->timeout_ns *= NS_PER_US;
    p->verify_every = verify;
    return true;
}

static bool parse(json_t *args, struct protect_args *a, Error **errp)
{
    static const char *const names[] = {
        "to",    "interval-us", "min-epoch-us",          "timeout-us", "verify", "arbiter", "psk", "insecure",
        "check", "delta",       "unsafe-no-output-hold", NULL};
    struct engine_params *p = &a->params;

    engine_params_default(p);
    p->interval_ns /= NS_PER_US;
    p->min_epoch_ns /= NS_PER_US;
    p->timeout_ns /= NS_PER_US;
    if (!qmp_args_only(args, names, errp) || !parse_times(args, p, errp) ||
        !qmp_arg_string(args, "to", p->to, sizeof(p->to), errp) ||
        !qmp_arg_string(args, "arbiter", p->arbiter, sizeof(p->arbiter), errp) ||
        !qmp_arg_string(args, "psk", a->psk, sizeof(a->psk), errp) ||
        !qmp_arg_bool(args, "insecure", &a->insecure, errp) ||
        !qmp_arg_bool(args, "check", &a->check, errp) || !qmp_arg_bool(args, "delta", &p->delta, errp) ||
        !qmp_arg_bool(args, "unsafe-no-output-hold", &a->unsafe_no_output_hold, errp))
        return false;
    if (!p->to[0])
        error_setg(errp,
                   "argument 'to' is missing: tcp:HOST:PORT or unix:PATH where `perdure standby` listens");
    return p->to[0];
}

bool protect_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    Vm *vm = opaque;
    struct protect_args a = {0};

    (void)ret_result;
    if (!parse(args, &a, errp) || !peer_check(vm, a.params.to, a.psk, a.insecure, errp))
        return false;
    if (!transport_socket_set_security(vm_transport(vm), a.psk, a.insecure, errp))
        return false;
    if (a.unsafe_no_output_hold)
        log_warn("%s: UNSAFE: output is not held; a failover will lose what clients were told",
                 vm_get_options(vm)->machine.name);
    net_output_buffer_set_unsafe_passthrough(a.unsafe_no_output_hold);
    console_gate_set_unsafe_passthrough(a.unsafe_no_output_hold);
    return engine_protect(vm_engine(vm), &a.params, a.check, errp);
}

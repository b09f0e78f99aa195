/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/listen.h"
#include "control/qmp_args.h"

bool listen_check(const struct vm_listen *l, Error **errp)
{
    Arbiter *a;

    if (!channel_address_is_local(l->address) && !l->psk[0] && !l->insecure) {
        error_setg(
            errp,
            "--listen %s is open to other hosts: give --psk FILE (perdure keygen makes one), or --insecure",
            l->address);
        return false;
    }
    if (!l->arbiter[0])
        return true;
    a = arbiter_new(l->arbiter, errp);
    arbiter_free(a);
    return a;
}

const char *listen_arbiter(const struct vm_listen *l)
{
    if (!l->arbiter[0] && l->insecure && !l->psk[0])
        return "manual";
    return l->arbiter;
}

bool listen_command(void *opaque, json_t *args, json_t **ret_result, Error **errp)
{
    static const char *const names[] = {"listen", "psk", "insecure", "arbiter", NULL};
    struct vm_listen l = {0};

    if (!qmp_args_only(args, names, errp) ||
        !qmp_arg_string(args, "listen", l.address, sizeof(l.address), errp) ||
        !qmp_arg_string(args, "psk", l.psk, sizeof(l.psk), errp) ||
        !qmp_arg_bool(args, "insecure", &l.insecure, errp) ||
        !qmp_arg_string(args, "arbiter", l.arbiter, sizeof(l.arbiter), errp))
        return false;
    if (!l.address[0]) {
        error_setg(errp, "argument 'listen' is missing: tcp:HOST:PORT or unix:PATH");
        return false;
    }
    if (!listen_check(&l, errp) || !vm_start_listening(opaque, &l, errp))
        return false;
    *ret_result = json_pack("{s:s}", "listen", vm_listens_at(opaque));
    return true;
}

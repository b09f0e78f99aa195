/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/peer_check.h"

#include <stdio.h>
#include <string.h>

static void complain(char *list, size_t size, const char *text)
{
    size_t used = strlen(list);

    snprintf(list + used, size - used, "%s%s", used ? "\n" : "", text);
}

bool peer_check(Vm *vm, const char *to, const char *psk, bool insecure, Error **errp)
{
    char missing[4096] = "", line[400];
    Machine *m;
    Error *err = NULL;

    vm_lock(vm);
    m = vm_machine(vm, &err);
    if (!m)
        complain(missing, sizeof(missing), error_get_pretty(err));
    vm_unlock(vm);
    error_free(err);
    if (!psk[0] && !insecure && !channel_address_is_local(to)) {
        snprintf(line, sizeof(line),
                 "%s is another host: give --psk FILE (perdure keygen makes one), or --insecure", to);
        complain(missing, sizeof(missing), line);
    }
    if (missing[0])
        error_setg(errp, "%s", missing);
    return !missing[0];
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* count: carries out numbered requests, each once, and proves it (requests.h), on a bare machine. */
#include "lib/console.h"
#include "lib/service.h"
#include "lib/status.h"
#include "request_server.h"
#include "requests.h"

const char guest_name[] = "count";

static bool answer(struct guest_message *m)
{
    if (m->op != GUEST_OP_COUNT)
        return false;
    requests_answer(m, status.errors != 0);
    return true;
}

void guest_main(void)
{
    request_server_start();
    if (!service_start(answer, -1, false)) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("count: no network: give it a virtio-net and ip=\n");
        return;
    }
    if (!guest_quiet())
        print("count: running\n");
    request_server_run();
}

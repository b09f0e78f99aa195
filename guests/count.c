/* SPDX-License-Identifier: GPL-2.0-or-later */
/* count: carries out numbered requests, each once, and proves it (requests.h), on a bare machine. */
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "requests.h"

const char guest_name[] = "count";

static void torn(uint64_t address, uint64_t have, uint64_t want)
{
    guest_fail(GUEST_ERROR_TORN, address, have, want);
    print("TORN address=%x have=%x want=%x\n", address, have, want);
}

static bool answer(struct guest_message *m)
{
    if (m->op != GUEST_OP_COUNT)
        return false;
    requests_answer(m, status.errors != 0);
    return true;
}

static void second_main(void)
{
    for (;;) {
        status.heartbeat[1]++;
        cpu_relax();
    }
}

void guest_main(void)
{
    status.count.start = option_number("start", 16 << 20) & ~(uint64_t)(GUEST_PAGE - 1);
    status.count.pages = option_number("pages", 1024);
    status.count.dirty = option_number("dirty", 2);
    requests_start(&status.count, torn);
    if (option_number("cpus", 1) > 1)
        status.cpus = cpu_start_second(second_main) ? 2 : 1;
    if (!service_start(answer, -1, false)) {
        guest_fail(GUEST_ERROR_SETUP, 0, 0, 0);
        print("count: no network: give it a virtio-net and ip=\n");
        return;
    }
    status.state = GUEST_STATE_RUNNING;
    if (!guest_quiet())
        print("count: running\n");
    while (status.errors == 0) {
        service_poll();
        status.heartbeat[0]++;
        cpu_relax();
    }
}

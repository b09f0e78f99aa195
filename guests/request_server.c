/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "request_server.h"

#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"
#include "requests.h"

static void torn(uint64_t address, uint64_t have, uint64_t want)
{
    guest_fail(GUEST_ERROR_TORN, address, have, want);
    print("TORN address=%x have=%x want=%x\n", address, have, want);
}

static void second_main(void)
{
    for (;;) {
        status.heartbeat[1]++;
        cpu_relax();
    }
}

void request_server_start(void)
{
    status.count.start = option_number("start", 16 << 20) & ~(uint64_t)(GUEST_PAGE - 1);
    status.count.pages = option_number("pages", 1024);
    status.count.dirty = option_number("dirty", 2);
    requests_start(&status.count, torn);
    if (option_number("cpus", 1) > 1)
        status.cpus = cpu_start_second(second_main) ? 2 : 1;
}

void request_server_run(void)
{
    status.state = GUEST_STATE_RUNNING;
    while (status.errors == 0) {
        service_poll();
        status.heartbeat[0]++;
        cpu_relax();
    }
}

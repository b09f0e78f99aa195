/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/clock.h"
#include "lib/cmdline.h"
#include "lib/console.h"
#include "lib/cpu.h"
#include "lib/io.h"
#include "lib/service.h"
#include "lib/status.h"

void guest_start(void);

bool guest_quiet(void)
{
    return option_is("quiet", "1");
}

void guest_fail(enum guest_error error, uint64_t where, uint64_t have, uint64_t want)
{
    if (__atomic_fetch_add(&status.errors, 1, __ATOMIC_RELAXED) == 0) {
        status.error_where = where;
        status.error_have = have;
        status.error_want = want;
        status.error = error;
    }
    status.state = GUEST_STATE_FAILED;
}

void guest_stop(void)
{
    for (;;) {
        service_poll();
        cpu_relax();
    }
}

static void set_status(void)
{
    uint64_t mixed = rdtsc() * 0x9e3779b97f4a7c15ull;

    status.version = GUEST_STATUS_VERSION;
    status.size = sizeof(struct guest_status);
    for (unsigned i = 0; i < sizeof(status.name) - 1 && guest_name[i]; i++)
        status.name[i] = guest_name[i];
    status.boot_id = (mixed ^ mixed >> 29) | 1;
    status.cpus = 1;
    status.magic = GUEST_STATUS_MAGIC;
}

/* Ring 3, first processor, .bss just cleared. */
void guest_start(void)
{
    cpu_init();
    set_status();
    console_init();
    cmdline_init();
    clock_init();
    status.tsc_khz = clock_khz();
    if (!guest_quiet())
        print("%s: started, tsc %u kHz, cmdline: %s\n", guest_name, clock_khz(), cmdline());
    guest_main();
    guest_stop();
}

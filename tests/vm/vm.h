/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests with real guests: machines of the small guests, what they print, and whether a walk is whole.
 */
#ifndef TESTS_VM_VM_H
#define TESTS_VM_VM_H

#include "guest_abi.h"
#include "machine/machine.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

/* A call with &err: its error fails the test. */
#define VM_OK(call)                                                                                          \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            fail_msg("%s: %s", #call, err ? error_get_pretty(err) : "no reason given");                      \
    } while (0)

#define VM_MEMORY (UINT64_C(48) << 20)

extern const char ends_start[], ends_end[];

/* A machine whose console goes to a file; asserts that nothing fails. One at a time. */
Machine *vm_boot(const char *guest, int cpus, const char *cmdline);
/* The same in two steps: devices may be added to the configuration between them. */
struct machine_config *vm_prepare(const char *guest, int cpus, const char *cmdline);
Machine *vm_boot_prepared(void);
/* The configuration for a machine from a stream: the same console. */
const struct machine_config *vm_here(void);
/* Ends it, and forgets the console's file. */
void vm_end(Machine *m);

/* The events so far. */
unsigned vm_events(enum machine_event ev);
/* Of the machine made by vm_boot() or told so. */
void vm_listen(Machine *m);

/* These wait, at most 20 s, and fail the test after that. */
void vm_wait_event(enum machine_event ev, unsigned count);
void vm_wait_console(const char *text);
void vm_wait_running(Machine *m);
void vm_wait_progress(Machine *m);
/* How often c is in what the guest printed. */
unsigned vm_console_count(char c);

const volatile struct guest_status *vm_status(Machine *m);
/* Paused: every page of the walk is as the guest left it. */
void vm_check_walk(Machine *m);
void vm_pause(Machine *m);
void vm_resume(Machine *m);
void vm_sleep_ms(int ms);

/* What travels: configuration, device state, RAM. */
struct vm_image {
    VMStream *config, *devices;
    uint8_t *ram;
    uint64_t pages;
};

/* Paused. */
void vm_image_take(struct vm_image *im, Machine *m);
Machine *vm_image_machine(const struct vm_image *im);
/* No machine comes of it, and the error has these words. */
void vm_image_refused(const struct vm_image *im, const char *words);
void vm_image_load(const struct vm_image *im, Machine *m);
void vm_image_drop(struct vm_image *im);
/* Ends m after its state was taken; the machine that goes on with it runs. */
Machine *vm_move(Machine *m);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SaveVMHandlers: how one component saves and loads its state; registered in one process-wide ordered list
 * that the engines walk (docs/savevm.md has every rule).
 *
 * A component is a device, whose state is small and saved at once with the machine stopped (save_state), or
 * live, whose state is large and goes in passes while the machine runs (RAM). Its handlers put bytes into the
 * open record of f and nothing more: the walks write name, instance, version and framing, and check them when
 * loading.
 *
 *     static void led_save(VMStream *f, void *opaque)
 *     {
 *         struct led *led = opaque;
 *
 *         perdure_stream_put_u8(f, led->on);
 *         perdure_stream_put_u32(f, led->blink_ms);                // since version 2
 *     }
 *
 *     static int led_load(VMStream *f, void *opaque, int version)
 *     {
 *         struct led *led = opaque;
 *         uint8_t on = perdure_stream_get_u8(f);
 *         uint32_t blink_ms = version >= 2 ? perdure_stream_get_u32(f) : 0;
 *
 *         if (perdure_stream_error(f, NULL) || on > 1)             // everything from a stream is hostile
 *             return -EINVAL;
 *         led->on = on;
 *         led->blink_ms = blink_ms;
 *         return 0;
 *     }
 *
 *     static const SaveVMHandlers led_handlers = {.save_state = led_save, .load_state = led_load};
 *
 *     status = register_savevm_live("led", -1, 2, &led_handlers, led);       // at creation
 *     unregister_savevm(NULL, "led", led);                                    // at destruction
 *
 * <perdure/vmstate.h> makes such handlers from a table of fields, which is what a device should use.
 *
 * Order: everything walks in the order of registration. Every member may be NULL: nothing to do, or the
 * default that its comment names. A handler that returns int answers 0 (or what its comment says), or a
 * negative errno; it may say more with perdure_stream_set_error(), whose text then comes first.
 *
 * Threads: one thread at a time uses the list and the walks. No component may register or go while a walk is
 * under way.
 */
#ifndef PERDURE_SAVEVM_H
#define PERDURE_SAVEVM_H

#include <perdure/stream.h>

/* A migration that resumes. */
struct MigrationState {
    VMStream *in; /* the open record in which the destination says what it lacks */
};

typedef struct SaveVMHandlers {
    /* Whole state at once, under the VM lock, machine stopped. Between pause and resume: no allocation, no
     * wait without bound; RAM stays as it is, its changed pages were collected before. */
    void (*save_state)(VMStream *f, void *opaque);
    /* Always called at the end, also after a failure, also where setup never ran. */
    void (*save_cleanup)(void *opaque);
    /* The rest, after the switch to the destination; instead of complete_precopy where has_postcopy. */
    int (*save_live_complete_postcopy)(VMStream *f, void *opaque);
    /* The rest, machine stopped. */
    int (*save_live_complete_precopy)(VMStream *f, void *opaque);
    /* NULL: yes. false: it takes no part, and a load does not ask for it. */
    bool (*is_active)(void *opaque);
    /* NULL: no. true: its rest may travel after the destination runs. */
    bool (*has_postcopy)(void *opaque);
    /* NULL: yes. false: skipped by the passes, not by setup and completion. */
    bool (*is_active_iterate)(void *opaque);
    /* One pass while the machine runs; without the VM lock in a migration, with it in a snapshot. 0: more to
     * do; 1: done for this stage; negative errno. */
    int (*save_live_iterate)(VMStream *f, void *opaque);
    /* Before the first pass, without the VM lock: allocates, begins tracking changes. */
    int (*save_setup)(VMStream *f, void *opaque);
    /* threshold is a hint: an estimate will do as long as it is above. ADDS what is left, in bytes, to the
     * three classes: must go before the destination starts / may go in any phase / must go after the source
     * has stopped. The sum is all that is pending. */
    void (*save_live_pending)(VMStream *f, void *opaque, uint64_t threshold, uint64_t *precopy_only,
                              uint64_t *compatible, uint64_t *postcopy_only);
    /* One section: START, each PART, END, or FULL, in the stream's order. version_id is the stream's, at most
     * the registered one. */
    int (*load_state)(VMStream *f, void *opaque, int version_id);
    /* Before the first section; and always at the end, also after a failure. */
    int (*load_setup)(VMStream *f, void *opaque);
    int (*load_cleanup)(void *opaque);
    /* A postcopy migration is about to resume after a broken link: reads what the destination lacks, and sends that
     * again. */
    int (*resume_prepare)(struct MigrationState *s, void *opaque);
} SaveVMHandlers;

/* idstr: 1 to 255 bytes, copied. instance_id -1: the next free one. version_id: of what save writes. ops and
 * opaque are borrowed until unregistered. 0, or -EEXIST (same idstr and instance), -EINVAL. */
int register_savevm_live(const char *idstr, int instance_id, int version_id, const SaveVMHandlers *ops,
                         void *opaque);
/* Removes every entry whose full id (obj + "/" + idstr where obj is not NULL) and opaque match; silent when
 * none. */
void unregister_savevm(const char *obj, const char *idstr, void *opaque);

/* --- the walks (rules: docs/savevm.md) --- */
bool perdure_savevm_setup(VMStream *f, Error **errp);
/* 1: every component is done for this stage; 0: call again; negative errno with errp. */
int perdure_savevm_iterate(VMStream *f, bool postcopy, Error **errp);
void perdure_savevm_pending(VMStream *f, uint64_t threshold, uint64_t *precopy_only, uint64_t *compatible,
                            uint64_t *postcopy_only);
/* END of the iterables; in_postcopy skips those with has_postcopy. */
bool perdure_savevm_complete_precopy(VMStream *f, bool in_postcopy, Error **errp);
bool perdure_savevm_complete_postcopy(VMStream *f, Error **errp);
/* FULL of every non-iterable component (devices, irqchip, vCPUs). Machine stopped. */
bool perdure_savevm_devices(VMStream *f, Error **errp);
void perdure_savevm_cleanup(void);
bool perdure_savevm_resume_prepare(struct MigrationState *s, Error **errp);
/* A whole state into f: setup, iterate until done, complete, devices, END; cleanup always. Machine stopped.
 */
bool perdure_savevm_all(VMStream *f, Error **errp);

/* Loads sections up to END: the four calls below for one state and nothing else in f. */
bool perdure_loadvm_all(VMStream *f, Error **errp);
/* The same record by record, for who finds others between them: load_setup of everyone; each section, or unknown
 * optional record, that perdure_stream_next() returned; at STATE_END: is everything there?; and load_cleanup, always, in
 * the end. */
bool perdure_loadvm_begin(VMStream *f, Error **errp);
bool perdure_loadvm_record(VMStream *f, uint16_t type, uint64_t id, Error **errp);
bool perdure_loadvm_complete(Error **errp);
/* The same when the machine is about to run, and components with has_postcopy have not all of their state yet. */
bool perdure_loadvm_may_run(Error **errp);
bool perdure_loadvm_cleanup(Error **errp);
/* Loads the FULL sections in f (what perdure_savevm_devices wrote), which must hold every non-iterable
 * component exactly once. */
bool perdure_loadvm_devices(VMStream *f, Error **errp);
/* The same checks (names, versions, framing, completeness), loading nothing. */
bool perdure_loadvm_devices_check(VMStream *f, Error **errp);

/* Record types of machine state (docs/wire-format.md). */
enum {
    PERDURE_RECORD_SECTION_START = 0x10,
    PERDURE_RECORD_SECTION_PART = 0x11,
    PERDURE_RECORD_SECTION_END = 0x12,
    PERDURE_RECORD_SECTION_FULL = 0x13,
    PERDURE_RECORD_SECTION_SHARE = 0x14, /* of a PART or END, beside the stream that has it */
    PERDURE_RECORD_STATE_END = 0x1f,
};

#endif

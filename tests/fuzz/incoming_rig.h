/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Incoming rig: a good migration as the bytes that its two sides sent, and a destination to which any bytes can be
 * offered in their place, a source that can be answered by any. Real engines and every device, no processors; on the simulator's fibers and clock, so a
 * wait costs nothing and a run repeats exactly. For tests/unit/test_hostile_migration.c and fuzz_incoming.c.
 *
 *     struct rig_recording good;
 *     struct rig_result result;
 *
 *     rig_init();
 *     rig_record(&good);
 *     rig_offer(&good, bytes, size, false, &result, NULL);  // behind the greeting; then the end of the connection
 *     ...                                                   // result.error, result.ran
 *     rig_forget(&good);
 *
 * Nothing here knows the layout of a record: what a later release sends is recorded as it is. One thread. What goes
 * wrong in the rig itself ends the process, with a word why.
 */
#ifndef TESTS_INCOMING_RIG_H
#define TESTS_INCOMING_RIG_H

#include "engine/engine.h"
#include "engine/wire.h"
#include "../sim/sim_runtime.h"

struct rig_bytes {
    uint8_t *data;
    size_t size;
};
/* Appends (realloc). */
void rig_bytes_add(struct rig_bytes *to, const void *data, size_t n);

/* What the two sides sent on the two connections. */
struct rig_recording {
    struct rig_bytes main, beat, answers, beat_answers;
    size_t greeting;                 /* of main: the first record */
    uint64_t memory_hash, disk_hash; /* of its machine, in the end */
    uint64_t device_hash;            /* of the machine that it became */
};

/* What the destination made of it. */
struct rig_result {
    enum engine_role role;
    enum engine_state state;
    char error[512];                              /* its last one; empty: none */
    char said[WIRE_TEXT_MAX];                     /* to the source: the text of REFUSE, FAIL or NOT_STARTED */
    unsigned answers[WIRE_PONG + 1];              /* records of each type that it sent */
    unsigned claims;                              /* at the arbiter */
    bool ran;                                     /* its machine */
    uint64_t memory_hash, disk_hash, device_hash; /* if it ran: as it began */
};

/* Once a process, before anything else. */
void rig_init(void);
void rig_record(struct rig_recording *ret);
void rig_forget(struct rig_recording *r);
/* data: behind the greeting on the main connection, which then ends; silent: which then says nothing more. good,
 * not NULL: afterwards the same destination is offered the recording as it is, unless it runs a guest already. */
void rig_offer(const struct rig_recording *r, const void *data, size_t size, bool silent,
               struct rig_result *ret, struct rig_result *ret_good);

/* What a source made of its answers. */
struct rig_source_result {
    enum engine_state state;
    char error[512];
    bool goes_on;    /* its guest, here */
    bool permitted;  /* RUN was sent */
    unsigned claims; /* of the source at the arbiter */
};

/* answers: from HELLO_OK on, on the main connection, which then ends, or is silent; says: the arbiter, when it is asked.
 * again, not NULL: afterwards the same source migrates to a destination as it should be, unless its guest is not
 * here any more; what became of it there. */
void rig_answer(const struct rig_recording *r, const void *answers, size_t size, bool silent,
                enum arbiter_answer says, struct rig_source_result *ret, struct rig_result *again);

/* Ends the process: the rig, or what it was asked, is at fault. */
void rig_fail(const char *fmt, ...) PERDURE_PRINTF(1, 2) __attribute__((noreturn));

#endif

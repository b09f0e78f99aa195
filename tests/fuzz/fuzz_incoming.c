/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of a migration's destination. The input is what a source sends on its main connection, behind the greeting: the
 * configuration, the disks' messages, RAM, every device, the permission to run. An input repeats exactly: fibers and a
 * simulated clock, no threads, no sockets.
 *
 *     make fuzz-incoming                                   FUZZ_TIME seconds, 600 unless said
 *     build-fuzz/tests/fuzz/fuzz_incoming FILE             one input again; V=1 shows what the engine says
 *
 * It fails by a crash, a sanitizer's report, a leak, a wait without end, and by what no input may bring about: a guest
 * that runs without one claim, a refusal without a reason, a destination that does not take the next migration.
 *
 * Checksums would keep everything out: so the mutator works on records, and puts them together with checksums that are
 * right; now and then on octets. FUZZ_SEEDS names a directory that gets the first inputs.
 */
#include "record_mutator.h"

#include <perdure/savevm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOOD_ONE_IN 16

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t max_size, unsigned seed);

static struct rig_recording good;
static struct records parts; /* of good, behind the greeting */

static void write_seed(const char *dir, const char *name, const struct records *rs)
{
    struct rig_bytes b = records_join(rs);
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    if (!f || fwrite(b.data, 1, b.size, f) != b.size || fclose(f))
        rig_fail("cannot write %s", path);
    free(b.data);
}

/* The recording, and it without the bulk of it: most of what can go wrong is elsewhere. */
static void write_seeds(const char *dir)
{
    struct records small;

    write_seed(dir, "recorded", &parts);
    records_copy(&small, &parts);
    for (unsigned i = small.count; i--;)
        if (small.r[i].type == PERDURE_RECORD_SECTION_PART)
            records_remove(&small, i);
    write_seed(dir, "small", &small);
    records_free(&small);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = getenv("FUZZ_SEEDS");

    (void)argc, (void)argv;
    rig_init();
    rig_record(&good);
    records_split(&parts, good.main.data + good.greeting, good.main.size - good.greeting);
    if (dir)
        write_seeds(dir);
    return 0;
}

static bool is_as_it_must_be(const struct rig_result *r)
{
    if (r->ran)
        return r->role == ENGINE_PRIMARY && r->state == ENGINE_UNPROTECTED && r->claims == 1;
    return r->role == ENGINE_BACKUP && r->state == ENGINE_LISTENING &&
           (r->error[0] || r->answers[WIRE_GOODBYE_OK]);
}

static bool is_good(const struct rig_result *r)
{
    return r->ran && r->memory_hash == good.memory_hash && r->disk_hash == good.disk_hash &&
           r->device_hash == good.device_hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool again = size % GOOD_ONE_IN == 0;
    struct rig_result r, after = {0};

    rig_offer(&good, data, size, false, &r, again ? &after : NULL);
    if (!is_as_it_must_be(&r))
        rig_fail("%s, %s, %s, %u claims, error '%s'", engine_role_name(r.role), engine_state_name(r.state),
                 r.ran ? "ran" : "did not run", r.claims, r.error);
    if (again && !r.ran && !is_good(&after))
        rig_fail("the migration after it: %s '%s'", after.ran ? "ran" : "did not run", after.error);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return record_mutate(data, size, max_size, seed, &parts);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t max_size, unsigned seed)
{
    return record_cross(a, a_size, b, b_size, out, max_size, seed);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Record mutator: changes a VMStream record by record, for a fuzzer whose input is one, and leaves the checksums right.
 */
#ifndef TESTS_RECORD_MUTATOR_H
#define TESTS_RECORD_MUTATOR_H

#include "stream_records.h"

/* As LLVMFuzzerCustomMutator() and LLVMFuzzerCustomCrossOver(). known: records that are worth putting in again. */
size_t record_mutate(uint8_t *data, size_t size, size_t max_size, unsigned seed, const struct records *known);
size_t record_cross(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                    size_t max_size, unsigned seed);

#endif

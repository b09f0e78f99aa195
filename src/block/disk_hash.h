/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk hash: SHA-256, by which the two sides of a pair compare pieces of their disks. Where somebody chooses
 * what a guest writes, a weaker one would let him choose two pieces that differ and look alike.
 */
#ifndef BLOCK_DISK_HASH_H
#define BLOCK_DISK_HASH_H

#include <perdure/error.h>
#include <stddef.h>
#include <stdint.h>

#include "block/epoch_writes.h"

bool disk_hash(const void *data, size_t size, uint8_t ret_hash[DISK_HASH_SIZE], Error **errp);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/disk_hash.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

bool disk_hash(const void *data, size_t size, uint8_t ret_hash[DISK_HASH_SIZE], Error **errp)
{
    int error = gnutls_hash_fast(GNUTLS_DIG_SHA256, data, size, ret_hash);

    if (error)
        error_setg(errp, "SHA-256: %s", gnutls_strerror(error));
    return !error;
}

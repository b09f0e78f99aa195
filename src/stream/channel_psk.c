/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The key file: one line, "perdure-psk:" and 64 hexadecimal digits.
 */
#include "stream/channel_psk.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX      "perdure-psk:"
#define PREFIX_SIZE (sizeof(PREFIX) - 1)
#define LINE_SIZE   (PREFIX_SIZE + 2 * PSK_SIZE + 1) /* with the line end */

/* -1: not a digit */
static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse(const char *line, size_t n, uint8_t ret_key[PSK_SIZE])
{
    if (n && line[n - 1] == '\n')
        n--;
    if (n != LINE_SIZE - 1 || memcmp(line, PREFIX, PREFIX_SIZE))
        return false;
    for (size_t i = 0; i < PSK_SIZE; i++) {
        int high = digit(line[PREFIX_SIZE + 2 * i]), low = digit(line[PREFIX_SIZE + 2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ret_key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void channel_psk_set_machine(struct channel_psk *psk, const char *name)
{
    snprintf(psk->identity, sizeof(psk->identity), "%s%s%s", CHANNEL_PSK_IDENTITY, *name ? ":" : "", name);
}

struct channel_psk *channel_psk_load(const char *path, Error **errp)
{
    struct channel_psk *psk = calloc(1, sizeof(*psk));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char line[LINE_SIZE + 1];
    bool ok = false;
    struct stat st;
    ssize_t n;

    if (!psk || fd < 0) {
        error_setg_errno(errp, psk ? errno : ENOMEM, "cannot open the key file %s", path);
        goto out;
    }
    n = fstat(fd, &st) ? -1 : read(fd, line, sizeof(line));
    if (n < 0) {
        error_setg_errno(errp, errno, "cannot read the key file %s", path);
        goto out;
    }
    if (st.st_mode & 077) {
        error_setg(errp, "the key file %s is open to other users: chmod 600 it", path);
        goto out;
    }
    ok = parse(line, (size_t)n, psk->key);
    channel_psk_set_machine(psk, "");
    if (!ok)
        error_setg(errp, "%s is not a key file of `perdure keygen`", path);
out:
    explicit_bzero(line, sizeof(line));
    if (fd >= 0)
        close(fd);
    if (ok)
        return psk;
    channel_psk_free(psk);
    return NULL;
}

bool channel_psk_generate(const char *path, Error **errp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    char line[LINE_SIZE + 1];
    uint8_t key[PSK_SIZE];
    int at, errnum = 0;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot make the key file %s", path);
        return false;
    }
    random_bytes(key, sizeof(key));
    at = snprintf(line, sizeof(line), PREFIX);
    for (size_t i = 0; i < PSK_SIZE; i++)
        at += snprintf(line + at, sizeof(line) - (size_t)at, "%02x", key[i]);
    line[at++] = '\n';
    errno = EIO; /* of a short write */
    if (write(fd, line, (size_t)at) != at || fsync(fd))
        errnum = errno;
    if (close(fd) && !errnum)
        errnum = errno;
    explicit_bzero(key, sizeof(key));
    explicit_bzero(line, sizeof(line));
    if (!errnum)
        return true;
    unlink(path);
    error_setg_errno(errp, errnum, "cannot write the key file %s", path);
    return false;
}

void channel_psk_free(struct channel_psk *psk)
{
    if (psk)
        explicit_bzero(psk, sizeof(*psk));
    free(psk);
}

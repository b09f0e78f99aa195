/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/run_dir.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_LENGTH 63
#define SUFFIX          ".sock"

bool run_dir_check_name(const char *name, Error **errp)
{
    size_t length = strlen(name);
    bool good = length && length <= NAME_MAX_LENGTH && isalnum((unsigned char)name[0]);

    for (size_t i = 0; good && i < length; i++)
        good = isalnum((unsigned char)name[i]) || strchr("._-", name[i]);
    if (!good)
        error_setg(
            errp,
            "'%s' is not a VM name: use 1 to %d letters, digits, '.', '_' and '-', a letter or digit first",
            name, NAME_MAX_LENGTH);
    return good;
}

static void run_dir(char *path, size_t size)
{
    const char *base = getenv("XDG_RUNTIME_DIR");

    snprintf(path, size, "%s/perdure", base && base[0] == '/' ? base : "/run");
}

static bool path_of(const char *name, const char *suffix, bool create, char *path, size_t size, Error **errp)
{
    char dir[200];

    if (!run_dir_check_name(name, errp))
        return false;
    run_dir(dir, sizeof(dir));
    if (create && mkdir(dir, 0700) < 0 && errno != EEXIST) {
        error_setg_errno(errp, errno, "%s: cannot make the directory of the control sockets", dir);
        return false;
    }
    /* A unix socket's address has room for 107 bytes. */
    if ((size_t)snprintf(path, size, "%s/%s%s", dir, name, suffix) >= size || strlen(path) > 107) {
        error_setg(errp, "%s: the path of the control socket is too long; choose a shorter name", name);
        return false;
    }
    return true;
}

bool run_dir_socket(const char *name, bool create, char *path, size_t size, Error **errp)
{
    return path_of(name, SUFFIX, create, path, size, errp);
}

bool run_dir_handover(const char *name, bool create, char *path, size_t size, Error **errp)
{
    return path_of(name, ".handover", create, path, size, errp);
}

void run_dir_each(void (*fn)(void *opaque, const char *name), void *opaque)
{
    struct dirent **entries;
    char dir[200];
    int n;

    run_dir(dir, sizeof(dir));
    n = scandir(dir, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *suffix = strrchr(entries[i]->d_name, '.');
        if (suffix && !strcmp(suffix, SUFFIX)) {
            *suffix = '\0';
            if (run_dir_check_name(entries[i]->d_name, NULL))
                fn(opaque, entries[i]->d_name);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

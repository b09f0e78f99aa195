/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Golden files: octets as hexadecimal digits, spaces and line ends as you like, '#' to the end of the line is
 * a comment. With PERDURE_GOLDEN=write in the environment a test writes what it found to stderr in the same
 * form, to be looked at and put in place.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The octets of tests/unit/golden/NAME; freed by the caller. NULL: no such file. */
static inline uint8_t *golden_load(const char *name, size_t *ret_size)
{
    char path[200], line[4096];
    uint8_t *bytes = NULL;
    size_t n = 0;
    FILE *in;

    snprintf(path, sizeof(path), "tests/unit/golden/%s", name);
    in = fopen(path, "r");
    if (!in)
        return NULL;
    while (fgets(line, sizeof(line), in)) {
        unsigned int byte;

        line[strcspn(line, "#")] = 0;
        for (char *p = line; *p; p++) {
            if (isspace((unsigned char)*p))
                continue;
            if (sscanf(p, "%2x", &byte) != 1)
                abort();
            bytes = realloc(bytes, n + 1);
            bytes[n++] = (uint8_t)byte;
            p++;
        }
    }
    fclose(in);
    *ret_size = n;
    return bytes;
}

/* Are these the octets of the golden file? Says where not. */
static inline int golden_matches(const char *name, const void *data, size_t size)
{
    const uint8_t *got = data;
    size_t n = 0, at = 0;
    uint8_t *want = golden_load(name, &n);

    while (at < n && at < size && want[at] == got[at])
        at++;
    free(want);
    if (getenv("PERDURE_GOLDEN"))
        for (size_t i = 0; i < size; i++)
            fprintf(stderr, "%02x%c", got[i], i % 16 == 15 || i + 1 == size ? '\n' : ' ');
    if (want && n == size && at == n)
        return 1;
    fprintf(stderr, "%s: %zu octets, expected %zu; the first difference is at %zu\n", name, size, n, at);
    return 0;
}

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * UUIDs as text, lower case: the names of pairs.
 */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include <stdbool.h>

#define UUID_TEXT_SIZE 37 /* with the NUL */

/* A random one (version 4). */
void uuid_random(char ret_text[UUID_TEXT_SIZE]);
/* Is text 8-4-4-4-12 lower-case hexadecimal digits? */
bool uuid_valid(const char *text);

#endif

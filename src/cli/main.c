/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        puts("perdure " PERDURE_VERSION);
        return 0;
    }
    fprintf(stderr, "perdure: no command given; see perdure --help\n");
    return 2;
}

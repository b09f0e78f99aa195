#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Every header compiles on its own; an installed one needs nothing but include/ and stays below 300 lines.
cd "$(dirname "$0")/../.." || exit 1
bad=0
for file in $(tests/lint/files c | grep '^\(include\|src\)/.*\.h$'); do
    flags="-Iinclude"
    if [[ $file == src/* ]]; then
        flags="-Iinclude -Isrc -D_GNU_SOURCE $(pkg-config --cflags gnutls jansson liburing 2>/dev/null)"
    elif [ "$(wc -l <"$file")" -ge 300 ]; then
        echo "$file: 300 lines or more"
        bad=1
    fi
    # shellcheck disable=SC2086 # several flags
    printf '#include "%s"\n' "$PWD/$file" |
        ${CC:-gcc} -std=gnu11 -Wall -Wextra -Werror $flags -fsyntax-only -x c - || { echo "$file: does not stand alone"; bad=1; }
done
exit $bad

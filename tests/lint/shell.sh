#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Shell scripts parse, and shellcheck, where it is installed, has no warning.
cd "$(dirname "$0")/../.." || exit 1
bad=0
for file in $(tests/lint/files shell); do
    bash -n "$file" || bad=1
    if command -v shellcheck >/dev/null; then
        shellcheck -S warning -e SC1090 "$file" || bad=1
    fi
done
exit $bad

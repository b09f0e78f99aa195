#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# .clang-format decides the layout; `make format` puts it right.
cd "$(dirname "$0")/../.." || exit 1
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
report=$(tests/lint/files c | xargs -r clang-format --dry-run -Werror 2>&1 | grep -o '^[^ :]*:[0-9]*:[0-9]*: error' | cut -d: -f1 | uniq -c)
[ -z "$report" ] && exit 0
echo "places that \`make format\` would change:"
echo "$report"
exit 1

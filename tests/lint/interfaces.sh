#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# docs/interfaces.md stays true: every file that a row names is there, and every function or type of a row's first column is in that
# row's header. "Not yet" is said where a header is missing, nowhere else.
cd "$(dirname "$0")/../.." || exit 1
doc=docs/interfaces.md
bad=0
complain() {
    echo "$doc: $1"
    bad=1
}

quoted() {
    grep -o '`[^`]*`' <<<"$1" | tr -d '`'
}

while IFS='|' read -r _ interface header code test _; do
    for file in $(quoted "$header $code $test"); do
        [ -e "$file" ] || complain "there is no $file"
    done
    header=$(quoted "$header" | head -n 1)
    if [ -z "$header" ]; then
        continue # not yet
    fi
    [ -n "$(quoted "$code")" ] && [ -n "$(quoted "$test")" ] || complain "a row without code or test:$interface"
    while read -r name; do
        name=${name#enum }
        [[ $name =~ ^[A-Za-z_]+$ ]] || continue # an argument list, a phrase
        grep -qw "$name" "$header" || complain "$name is not in $header"
    done < <(quoted "$interface")
done < <(grep '^| ' "$doc" | grep -v '^| interface ')

for name in $(sed -n '/^global:/,/^local:/s/^\t\([a-z_]*\);$/\1/p' src/libperdure.map); do
    grep -qw "$name" "$doc" || complain "$name is exported and in no row"
done
exit $bad

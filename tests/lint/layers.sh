#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A file includes only its own folder, the layers below, and include/perdure. The library's layers (up to engine) also leave out
# device and machine: an engine sees a Guest, never a KVM.
cd "$(dirname "$0")/../.." || exit 1
declare -A below=(
    [base]=""
    [stream]="base"
    [registry]="base stream"
    [guest]="base stream registry"
    [block]="base stream registry"
    [net]="base stream registry"
    [device]="base stream registry guest block net"
    [machine]="base stream registry guest block net device"
    [engine]="base stream registry guest block net"
    [control]="base stream registry guest block net device machine engine"
    [cli]="base stream registry guest block net device machine engine control"
)
bad=0
complain() {
    echo "$1"
    bad=1
}

for file in $(tests/lint/files c); do
    case $file in
    src/*/*) layer=${file#src/}; layer=${layer%%/*} ;;
    include/*) layer= ;;
    *) continue ;;
    esac
    if [ -n "$layer" ] && [ -z "${below[$layer]+known}" ]; then
        complain "$file: '$layer' is not a layer"
        continue
    fi
    while IFS=: read -r line name; do
        folder=${name%%/*}
        if [ "$folder" = "$name" ]; then
            complain "$file:$line: include \"$name\" with its folder, as in \"base/task.h\""
        elif [ -z "$layer" ]; then
            complain "$file:$line: an installed header includes \"$name\""
        elif [[ " $layer ${below[$layer]} " != *" $folder "* ]]; then
            complain "$file:$line: layer $layer includes \"$name\", which is not below it"
        elif [ ! -e "src/$name" ]; then
            complain "$file:$line: there is no src/$name"
        fi
    done < <(sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/;T;=;p' "$file" | paste -d: - -)
    if [ -z "$layer" ]; then
        grep -nH '^#include <linux/kvm' "$file" && bad=1
    fi
done
exit $bad

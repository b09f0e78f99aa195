#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What a reader should be able to rely on: a licence in every file, short functions and files, and no call that the file's layer
# must not make. Comments do not count.
cd "$(dirname "$0")/../.." || exit 1
LIBRARY='^(include|src/(base|stream|registry|guest|block|net|engine))/'
bad=0

licence() {
    local file=$1 want=GPL-2.0-or-later found
    [[ $file =~ $LIBRARY ]] && want=LGPL-2.1-or-later
    found=$(head -n 2 "$file" | sed -n 's/.*SPDX-License-Identifier: \([A-Za-z0-9.-]*\).*/\1/p')
    case $found in
    "$want") ;;
    "") echo "$file: no SPDX-License-Identifier in its first line" ;;
    *) [[ $file == examples/* ]] || echo "$file: licence $found, its folder has $want" ;;
    esac
}

# A function begins with a brace in the first column and ends with another.
lengths() {
    awk -v file="$1" '
        /^\{/ { begin = NR }
        /^\}/ { if (begin && NR - begin - 1 > 70) print file ":" begin ": a function of " NR - begin - 1 " lines (at most 70)"; begin = 0 }
        END { if (NR > 700) print file ": " NR " lines (at most 700)" }' "$1"
}

# banned FILE REGEX WHY: calls in the code of FILE, which is on standard input without its comments.
banned() {
    grep -E "(^|[^A-Za-z0-9_>.])($2) *\(" | sed "s|^[ \t]*|$1: $3: |"
}

calls() {
    local file=$1 code
    code=$(gcc -fpreprocessed -dD -E -P -x c "$file" 2>/dev/null | sed 's/"\([^"\\]\|\\.\)*"/""/g')
    banned "$file" 'strcpy|strcat|sprintf|vsprintf|gets|alloca|strtok|tmpnam|mktemp' 'a call that is banned everywhere' <<<"$code"
    if [[ $file =~ ^src/ && $file =~ $LIBRARY ]]; then
        banned "$file" 'exit|printf|vprintf|fprintf|vfprintf|puts|putchar|fputs|perror' \
            'the library never prints and never exits' <<<"$code"
    fi
    if [[ $file =~ ^src/(engine|registry)/ ]]; then
        banned "$file" 'time|clock_gettime|gettimeofday|sleep|usleep|nanosleep|pthread_[a-z_]*|socket|accept|poll|ppoll|select' \
            'engines use Clock, Task and Channel' <<<"$code"
        grep -E '\bKVM_|\bkvm_|linux/kvm|pthread\.h|sys/socket\.h' <<<"$code" | sed "s|^[ \t]*|$file: engines never see KVM, threads or sockets: |"
    fi
}

report=$(
    for file in $(tests/lint/files all); do
        case $file in
        *.[chS] | *.sh | *.mk | Makefile) licence "$file" ;;
        *) head -c 2 "$file" | grep -aq '^#!' && licence "$file" ;;
        esac
        [[ $file == *.[ch] ]] || continue
        lengths "$file"
        calls "$file"
    done
)
if [ -n "$report" ]; then
    echo "$report"
    bad=1
fi
exit $bad

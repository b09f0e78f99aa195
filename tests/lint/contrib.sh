#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The service units are ones that systemd would take; man pages have nothing that man warns of.
cd "$(dirname "$0")/../.." || exit 1
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
bad=0

mkdir "$dir/bin"
ln -s "$(type -P true)" "$dir/bin/perdure" # verify wants the program to be there
cp contrib/systemd/*.socket "$dir"
for unit in contrib/systemd/*.in; do
    sed "s|@PREFIX@|$dir|" "$unit" >"$dir/$(basename "$unit" .in)"
done
for unit in "$dir"/*.socket "$dir"/*.service; do
    said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "${unit/@./@web.}" 2>&1) || bad=1
    [ -z "$said" ] || { echo "$(basename "$unit"): $said"; bad=1; }
done
for page in docs/man/*.[1-9]; do
    case $(head -c 4 "$page") in .so*) [ -e "docs/man/$(sed 's|.*/||' "$page")" ] && continue ;; esac
    said=$(groff -man -Tutf8 -ww -z "$page" 2>&1)
    [ -z "$said" ] || { echo "$page: $said"; bad=1; }
done
exit $bad

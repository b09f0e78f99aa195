#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every small guest under QEMU, with 1 and 2 processors: by its PVH entry under TCG, and as a firmware image under TCG and, where
# /dev/kvm can be opened, under KVM. Shows that a guest is right before a monitor is judged by it. Needs root (network namespace, tap).
#
#   tests/vm/guests_under_qemu.sh BUILD_DIRECTORY [FILTER]     FILTER: part of a case's name, such as kvm-bios-2/irq
set -u
build=$1 filter=${2:-}
dir=$(mktemp -d) ns=gq$$ passed=0 failed=0 pid=
client() { timeout 60 ip netns exec "$ns" "$build/tests/vm/count_client" --address 10.77.0.2 "$@"; }

cleanup()
{
    [ -n "$pid" ] && kill "$pid" 2>/dev/null
    ip netns del "$ns" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT

ip netns add "$ns" || exit 1
ip -n "$ns" link set lo up
ip -n "$ns" tuntap add dev tap0 mode tap vnet_hdr || exit 1
ip -n "$ns" addr add 10.77.0.1/24 dev tap0
ip -n "$ns" link set tap0 up
perl -e 'print pack("Q<*", $_ * 8192 .. $_ * 8192 + 8191) for 0 .. 63' >"$dir/disk"

# start MODE CPUS GUEST OPTIONS: leaves pid, and the console in $dir/console
start()
{
    local mode=$1 cpus=$2 guest=$3 line="ip=10.77.0.2 cpus=$2 $4" boot
    : >"$dir/console"
    case $mode in
    tcg-pvh) boot=(-accel tcg -cpu max -kernel "$build/guests/$guest.elf" -append "$line") ;;
    tcg-bios) boot=(-accel tcg -cpu max -bios "$build/guests/$guest.bin") ;;
    kvm-bios) boot=(-accel kvm -cpu "host,arch-capabilities=off" -bios "$build/guests/$guest.bin") ;;
    esac
    [ "$mode" = tcg-pvh ] || boot+=(-fw_cfg "name=opt/perdure.cmdline,string=$line")
    ip netns exec "$ns" qemu-system-x86_64 -nodefaults -display none -m 64 \
        -object "memory-backend-file,id=m,size=64M,mem-path=$dir/ram,share=on" -machine memory-backend=m -smp "$cpus" "${boot[@]}" \
        -chardev "file,id=c,path=$dir/console" -serial chardev:c \
        -netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n,disable-legacy=on \
        -drive "if=none,id=d,file=$dir/disk,format=raw,readonly=on" -device virtio-blk-pci,drive=d,disable-legacy=on \
        2>"$dir/stderr" &
    pid=$!
    for _ in $(seq 300); do
        grep -q "^$guest: running" "$dir/console" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "$guest did not come up"
    return 1
}

stop()
{
    [ -n "$pid" ] && kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    pid=
}

# value JSON KEY
value() { sed -n 's/.*"'"$2"'":\[*\([0-9]*\).*/\1/p' <<<"$1"; }

sane()
{
    local s
    s=$(client --status) || return 1
    echo "$s"
    [ "$(value "$s" errors)" = 0 ] && [ "$(value "$s" state)" = 1 ] && [ "$(value "$s" frames_bad)" = 0 ]
}

# No answer a line: the guest ends, and so does QEMU (power off), or a new boot says so (resets).
ends()
{
    client --print "a line of text" && grep -q "^a line of text" "$dir/console" || return 1
    local before=0 how
    for how in reset reset-keyboard triple-fault; do
        before=$(grep -c ": running" "$dir/console")
        client "--$how" || return 1
        for _ in $(seq 300); do
            [ "$(grep -c ": running" "$dir/console")" -gt "$before" ] && break
            sleep 0.1
        done
        [ "$(grep -c ": running" "$dir/console")" -gt "$before" ] || { echo "no boot after --$how"; return 1; }
    done
    client --poweroff || return 1
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || { pid=; return 0; }
        sleep 0.1
    done
    echo "still there after --poweroff"
    return 1
}

test_walk()
{
    start "$1" "$2" walk "size=8M" || return 1
    sleep 2
    local s
    s=$(sane) || { echo "$s"; return 1; }
    [ "$(value "$s" rounds)" -gt 0 ]
}

# poke OFFSET BYTE: into the running guest's RAM
poke() { printf "\\x$2" | dd of="$dir/ram" bs=1 seek=$(($1)) conv=notrunc status=none; }

# A page put back by a byte, or a stamp lost, must be found: otherwise all the silence of walk proves nothing.
test_walk_finds()
{
    start "$1" "$2" walk "size=4M rate=1000" || return 1
    [ "$(dd if="$dir/ram" bs=1 skip=$((0x200000)) count=8 status=none)" = PERDSTAT ] || return 1
    poke "0x1000000 + 4096 * 100 + $3" 99
    for _ in $(seq 50); do
        grep -q "^TORN page=1064000 " "$dir/console" && break
        sleep 0.1
    done
    grep -q "^TORN page=1064000 " "$dir/console" && [ "$(value "$(client --status)" error)" = 1 ]
}

test_count()
{
    start "$1" "$2" count "pages=64" || return 1
    ip netns exec "$ns" ping -q -c 5 -i 0.1 -W 2 -s 1000 10.77.0.2 | grep -q " 5 received" || return 1
    client --requests 1000 --seconds 40 && sane && client --requests 10 --seconds 20 && ends
}

# A guest that forgets must be noticed by the client, unless it was told that this may happen.
test_count_finds()
{
    local s
    start "$1" "$2" count "" || return 1
    client --seconds 2.5 --interval-us 1000 --timeline >"$dir/client" &
    sleep 0.7
    client --reset || return 1
    wait $! && { echo "the client found nothing"; return 1; }
    s=$(tail -1 "$dir/client")
    cat "$dir/client"
    [ "$(value "$s" lost)" -gt 0 ] && [ "$(value "$s" reboots)" = 1 ] || return 1
    client --seconds 2 --interval-us 1000 --allow-reboots &
    sleep 0.5
    client --reset && wait $!
}

test_dirty()
{
    start "$1" "$2" dirty "rate=2000" || return 1
    sleep 1
    client --control rate=5000,pages=100,reset=1 || return 1
    sleep 2
    client --control rate=100,pages=10,print=1 || return 1
    sleep 0.5
    local n
    n=$(sed -n 's/^dirty: pages=\([0-9]*\) .*/\1/p' "$dir/console")
    [ "${n:-0}" -gt 5000 ] && [ "$n" -lt 20000 ] && sane
}

test_irq()
{
    start "$1" "$2" irq "timer=$3 event_idx=$4" || return 1
    ip netns exec "$ns" ping -q -c 100 -i 0.02 -W 2 10.77.0.2 | grep -q " 100 received" || echo "pings lost"
    local s
    s=$(sane) || { echo "$s"; return 1; }
    echo "$s"
    [ "$(value "$s" sectors)" -gt 200 ] && [ "$(value "$s" irq1)" -gt 90 ] && [ "$(value "$s" irq3)" -gt 50 ]
}

# The device is told behind the guest's back to send no interrupts: the guest must find that, and still answer.
test_irq_finds()
{
    start "$1" "$2" irq "event_idx=0 timeout=300" || return 1
    # The rings are the second page of its struct blk; the available one is behind 64 descriptors.
    poke "0x$(nm "$build/guests/irq.elf" | sed -n 's/ b blk$//p') + 4096 + 1024" 01
    for _ in $(seq 50); do
        grep -q "^STUCK queue=blk used=yes" "$dir/console" && break
        sleep 0.1
    done
    grep -q "^STUCK queue=blk used=yes" "$dir/console" && sleep 1.2 && [ "$(value "$(client --status)" error)" = 2 ]
}

# The image holds what it expects to read.
test_disk()
{
    start "$1" "$2" disk "op=read order=$3 block=$4 depth=$5 seconds=2" || return 1
    for _ in $(seq 300); do
        grep -q "^disk: operations=" "$dir/console" && break
        sleep 0.1
    done
    local n
    n=$(sed -n 's/^disk: operations=\([0-9]*\) .*/\1/p' "$dir/console")
    [ "${n:-0}" -gt 100 ] && [ "$(value "$(client --status)" errors)" = 0 ]
}

# A sector that is not what it should be.
test_disk_finds()
{
    printf '\x01' | dd of="$dir/disk" bs=1 seek=$((512 * 77)) conv=notrunc status=none
    start "$1" "$2" disk "op=read order=sequential block=4K depth=4 seconds=20"
    for _ in $(seq 100); do
        grep -q "^DATA sector=77 " "$dir/console" && break
        sleep 0.1
    done
    printf '\x40' | dd of="$dir/disk" bs=1 seek=$((512 * 77)) conv=notrunc status=none
    grep -q "^DATA sector=77 " "$dir/console"
}

# run NAME COMMAND...
run()
{
    case $1 in *"$filter"*) ;; *) return ;; esac
    local name=$1 from=$SECONDS
    shift
    if "$@" >"$dir/log" 2>&1; then
        passed=$((passed + 1))
        echo "  ok    $name ($((SECONDS - from)) s)"
    else
        failed=$((failed + 1))
        echo "  FAIL  $name"
        sed 's/^/        /' "$dir/log" "$dir/console" "$dir/stderr" | tail -30
    fi
    stop
}

modes="tcg-pvh tcg-bios"
[ -w /dev/kvm ] && modes="$modes kvm-bios"
for mode in $modes; do
    for cpus in 1 2; do
        run "$mode-$cpus/walk" test_walk "$mode" $cpus
        run "$mode-$cpus/walk-finds" test_walk_finds "$mode" $cpus 0
        run "$mode-$cpus/count" test_count "$mode" $cpus
        run "$mode-$cpus/count-finds" test_count_finds "$mode" $cpus
        run "$mode-$cpus/dirty" test_dirty "$mode" $cpus
        run "$mode-$cpus/disk" test_disk "$mode" $cpus random 4K 16
        run "$mode-$cpus/disk-large" test_disk "$mode" $cpus sequential 512K 4
        run "$mode-$cpus/disk-finds" test_disk_finds "$mode" $cpus
        run "$mode-$cpus/irq" test_irq "$mode" $cpus periodic 1
        run "$mode-$cpus/irq-deadline" test_irq "$mode" $cpus deadline 0
        run "$mode-$cpus/irq-finds" test_irq_finds "$mode" $cpus
    done
done
echo "guests-qemu: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]

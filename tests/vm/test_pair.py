#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of processes on two hosts, one scenario a function: test_pair.py [--build build] [test_NAME...]"""
import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from scenario import (CountClient, Frames, Qmp, ask, ask_who_has, assert_well, in_namespace, require, run_count, run_tests)  # noqa: E402


def protected(pair, *options, standby=(), **guest):
    """The usual beginning: primary on a, backup on b, PROTECTED. Both processes."""
    primary = run_count(pair.a, **guest)
    backup = pair.b.standby(standby)
    pair.a.protect(pair.b, *options)
    return primary, backup


def take_over(pair, primary, backup):
    """The primary dies; the backup runs."""
    primary.kill()
    return pair.b.wait_state("UNPROTECTED", process=backup)


# --- changes of role ---

def test_takeover(pair):
    primary, backup = protected(pair, "--verify", "5")
    before = assert_well(pair)
    client = CountClient(pair)
    time.sleep(0.5)
    status = pair.a.status()
    require(status["checkpoint"]["verified"] > 0, "no epoch was verified", status)
    require(status["last_error"] == "", "an error", status["last_error"])
    after = take_over(pair, primary, backup)
    client.finish()
    assert_well(pair, before)
    require(after["role"] == "primary" and after["generation"] > status["generation"], "role or generation", after)
    for line in ("last-ack", "detection", "arbiter", "load", "announce"):
        require(re.search("^" + line, after["report"], re.M), "the report lacks " + line, after["report"])


def test_swap_there_and_back(pair):
    protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    here, there = pair.a, pair.b
    for _ in range(10):
        here.perdure("swap", pair.vm)
        there.wait_state("PROTECTED")
        here.wait_state("STANDBY")
        here, there = there, here
    client.finish()
    assert_well(pair, before)


def test_swap_then_kill(pair):
    primary, _ = protected(pair)
    client = CountClient(pair)
    pair.a.perdure("swap", pair.vm)
    pair.b.wait_state("PROTECTED")
    pair.processes[1].kill()
    pair.a.wait_state("UNPROTECTED", process=primary)
    client.finish()


def test_swap_then_kill_at_once(pair):
    """There is no moment in which the guest is not protected: the former primary takes over, and nothing acknowledged is lost."""
    primary, backup = protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    for after in (0, 0.01, 0.03, 0.1):
        time.sleep(0.2)  # requests are under way
        pair.a.perdure("swap", pair.vm)
        time.sleep(after)
        backup.kill()
        pair.a.wait_state("UNPROTECTED", process=primary)
        assert_well(pair, before)
        backup = pair.b.standby()
        pair.a.protect(pair.b)
    client.finish()
    assert_well(pair, before)


def test_swap_then_end(pair):
    """A side that ends after it handed over says so: even with the manual arbiter the guest goes on by itself."""
    primary, _ = protected(pair, "--arbiter", "manual")
    client = CountClient(pair)
    pair.a.perdure("shutdown", pair.vm)
    require(primary.wait(20) == 0, "end of the process", primary.log())
    pair.b.wait_state("UNPROTECTED")
    client.finish()


def test_unprotect(pair):
    primary, backup = protected(pair)
    client = CountClient(pair)
    pair.a.perdure("unprotect", pair.vm)
    require(pair.a.status()["state"] == "UNPROTECTED", "not UNPROTECTED", pair.a.status())
    pair.b.wait_state("LISTENING", timeout=5, process=backup)
    ask(pair, "status", wait_ms=500)  # output flows
    gap = client.finish()["max_gap_ms"]
    require(gap < 2000, "output was stuck, ms", gap)
    primary.kill()
    time.sleep(1.5)
    require(pair.b.status()["state"] == "LISTENING", "the backup claimed", pair.b.status())
    require(not ask(pair, "status", wait_ms=200, check=False), "somebody answers for a dead guest")


def test_backup_dies_and_a_new_one_comes(pair):
    primary, backup = protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    time.sleep(0.2)
    backup.kill()
    pair.a.wait_state("UNPROTECTED", timeout=5, process=primary)
    assert_well(pair, before)
    backup = pair.b.standby()
    pair.a.protect(pair.b)
    time.sleep(0.2)
    take_over(pair, primary, backup)
    client.finish()
    assert_well(pair, before)


def test_protect_again_in_the_other_direction(pair):
    primary, backup = protected(pair)
    client = CountClient(pair)
    take_over(pair, primary, backup)
    again = pair.a.standby()
    pair.b.protect(pair.a)
    time.sleep(0.2)
    backup.kill()
    pair.a.wait_state("UNPROTECTED", process=again)
    client.finish()


def test_failover_command_with_a_living_primary(pair):
    protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    pair.b.perdure("failover", pair.vm)
    pair.b.wait_state("PROTECTED")
    pair.a.wait_state("STANDBY")
    client.finish()
    assert_well(pair, before)


# --- who may go on ---

def test_manual_arbiter(pair):
    primary, backup = protected(pair, "--arbiter", "manual")
    client = CountClient(pair)
    time.sleep(0.2)
    primary.kill()
    pair.b.wait_state("ASKING", process=backup)
    time.sleep(1)
    require(pair.b.status()["state"] == "ASKING", "it did not wait", pair.b.status())
    pair.b.perdure("failover", pair.vm, "--peer-is-dead")
    pair.b.wait_state("UNPROTECTED", process=backup)
    client.finish()


def test_manual_arbiter_lets_the_primary_go_on(pair):
    primary, backup = protected(pair, "--arbiter", "manual")
    client = CountClient(pair)
    backup.kill()
    pair.a.wait_state("UNPROTECTED", timeout=5, process=primary)
    client.finish()


def arbiter_script(pair, exit_status):
    """For command:PATH: notes its environment, and answers what the file `answer` says."""
    path = os.path.join(pair.dir, "arbiter-script")
    with open(path, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nenv | grep ^PERDURE_ | sort > %s/claim-$PERDURE_SIDE\nexit $(cat %s/answer)\n" % (pair.dir, pair.dir))
    os.chmod(path, 0o755)
    set_answer(pair, exit_status)
    return "command:" + path


def set_answer(pair, exit_status):
    with open(os.path.join(pair.dir, "answer.new"), "w", encoding="ascii") as f:
        f.write("%d\n" % exit_status)
    os.rename(os.path.join(pair.dir, "answer.new"), os.path.join(pair.dir, "answer"))


def test_command_arbiter(pair):
    primary, backup = protected(pair, "--arbiter", arbiter_script(pair, 0))
    client = CountClient(pair)
    status = pair.a.status()
    take_over(pair, primary, backup)
    client.finish()
    with open(os.path.join(pair.dir, "claim-backup"), encoding="ascii") as f:
        claim = dict(line.strip().split("=", 1) for line in f)
    require(claim["PERDURE_VM"] == pair.vm and claim["PERDURE_PAIR"] == status["pair"], "the claim", claim)
    require(claim["PERDURE_GENERATION"] == str(status["generation"]), "the claim's generation", claim, status)
    require("PERDURE_PEER" in claim, "the claim names no peer", claim)


def test_denied_primary_is_fenced(pair):
    primary, backup = protected(pair, "--arbiter", arbiter_script(pair, 1))
    backup.kill()
    pair.a.wait_state("FENCED", timeout=10, process=primary)
    with Frames(pair, "a") as frames:
        ask_who_has(pair)
        require(not ask(pair, "status", wait_ms=500, check=False), "a FENCED guest answers")
        require(not frames.seen, "frames of a FENCED guest", len(frames.seen))
    for command in "resume", "reset", "stop":
        refused = pair.a.perdure(command, pair.vm, check=False)
        require(refused.returncode == 1 and "FENCED" in refused.stderr, command + " of a FENCED guest", refused)
    pair.a.perdure("quit", pair.vm)
    primary.wait(10)


def test_silent_arbiter_holds_output_until_forced(pair):
    """Exit 3 of the arbiter's command says nothing: the primary asks again and again, and not a frame leaves."""
    primary, backup = protected(pair, "--arbiter", arbiter_script(pair, 3))
    client = CountClient(pair)
    time.sleep(0.2)
    with Frames(pair, "a") as frames:
        backup.kill()
        pair.a.wait_state("ASKING", timeout=5, process=primary)
        time.sleep(0.3)
        quiet_since = time.monotonic()
        time.sleep(1)
        require(pair.a.status()["state"] == "ASKING", "it did not wait", pair.a.status())
        require(not frames.since(quiet_since), "frames while ASKING", len(frames.since(quiet_since)))
    pair.a.perdure("unprotect", pair.vm, "--force")
    pair.a.wait_state("UNPROTECTED", timeout=5, process=primary)
    client.finish()


def mend_link(pair):
    """Until the hosts have noticed: for a while there is "no route"."""
    def answers():
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex((pair.a.link, 9)) == errno.ECONNREFUSED

    pair.link(True)
    pair.wait(lambda: in_namespace(pair.b.netns, answers), 15, "link")


def swapped_and_cut(pair, *options):
    """b is the primary after a swap, and goes on alone; a, which `run` started, is the backup that was denied. The process on a."""
    path = os.path.join(pair.dir, "for-the-primary")
    with open(path, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n[ $PERDURE_GENERATION = 1 ] || [ $PERDURE_SIDE = primary ]\n")
    os.chmod(path, 0o755)
    first, _ = protected(pair, "--arbiter", "command:" + path, extra=options)
    pair.a.perdure("swap", pair.vm)
    pair.b.wait_state("PROTECTED")
    pair.link(False)
    pair.b.wait_state("UNPROTECTED")
    pair.a.wait_state("LISTENING", process=first)
    mend_link(pair)
    return first


def test_listen_after_a_swap(pair):
    """A process that was not told to listen becomes the backup; the link breaks: it can be told then."""
    first = swapped_and_cut(pair)
    client = CountClient(pair)
    require(pair.a.status()["listen"] == "", "it listens", pair.a.status())
    refused = pair.b.protect(pair.a, check=False)
    require(refused.returncode == 1 and "10.99.0.1" in refused.stderr, "protect to a side that does not listen", refused)
    open_to_all = pair.a.perdure("listen", pair.vm, "--listen", pair.a.address, check=False)
    require(open_to_all.returncode == 1 and "--psk" in open_to_all.stderr, "listen without a key", open_to_all)
    said = pair.a.perdure("listen", pair.vm, "--listen", pair.a.address, "--psk", pair.psk)
    require(said.strip() == pair.a.address == pair.a.status()["listen"], "where it listens", said, pair.a.status())
    again = pair.a.perdure("listen", pair.vm, "--listen", "tcp:127.0.0.1:0", check=False)
    require(again.returncode == 1 and "already" in again.stderr, "listen twice", again)
    pair.b.protect(pair.a)
    pair.a.wait_state("STANDBY", process=first)
    client.finish()


def test_run_that_listens(pair):
    """Told at the start: refused while it runs the guest, a standby after the swap."""
    swapped_and_cut(pair, "--listen", pair.a.address, "--psk", pair.psk)
    pair.b.protect(pair.a)
    pair.a.wait_state("STANDBY")
    assert_well(pair)
    pair.b.perdure("swap", pair.vm)
    pair.a.wait_state("PROTECTED")
    other = pair.neighbour(pair.b)
    other.start("run", "--name", pair.vm, "--memory", "64M", "--kernel", "builtin:walk")
    other.wait_state("UNPROTECTED")
    refused = other.protect(pair.a, check=False)
    require(refused.returncode == 1 and "runs here as the primary" in refused.stderr, "a second primary", refused)


def test_protect_again_with_the_manual_arbiter(pair):
    """Both live, the link was cut: the primary goes on, the backup cannot know. It hears it when the primary comes back."""
    primary, backup = protected(pair, "--arbiter", "manual")
    client = CountClient(pair)
    pair.link(False)
    pair.a.wait_state("UNPROTECTED", process=primary)
    pair.b.wait_state("ASKING", process=backup)
    mend_link(pair)
    pair.a.protect(pair.b, "--arbiter", "manual")
    pair.b.wait_state("STANDBY", timeout=10, process=backup)
    client.finish()


def test_forced_primary_hears_the_arbiter_in_the_end(pair):
    """The user vouches, and was wrong: as soon as the arbiter says so the guest stands still, and not a frame leaves."""
    primary, backup = protected(pair, "--arbiter", arbiter_script(pair, 3))
    backup.kill()
    pair.a.wait_state("ASKING", timeout=5, process=primary)
    pair.a.perdure("unprotect", pair.vm, "--force")
    assert_well(pair)
    set_answer(pair, 1)
    pair.a.wait_state("FENCED", timeout=20, process=primary)
    with Frames(pair, "a") as frames:
        ask_who_has(pair)
        require(not ask(pair, "status", wait_ms=500, check=False), "a FENCED guest answers")
        require(not frames.seen, "frames of a FENCED guest", len(frames.seen))
    require("denied after all" in pair.a.status()["report"], "the report", pair.a.status()["report"])
    pair.a.perdure("quit", pair.vm)
    primary.wait(10)


def test_arbiter_answers_late(pair):
    primary, backup = protected(pair, "--arbiter", arbiter_script(pair, 3))
    client = CountClient(pair)
    primary.kill()
    pair.b.wait_state("ASKING", timeout=5, process=backup)
    set_answer(pair, 0)
    pair.b.wait_state("UNPROTECTED", timeout=15, process=backup)
    client.finish()


def test_frozen_primary_returns(pair):
    primary, backup = protected(pair)
    client = CountClient(pair)
    time.sleep(0.3)
    with Frames(pair, "a") as frames:
        pair.wait(lambda: frames.seen, 20, "frame of the guest: the test could not fail")
        primary.freeze()
        pair.b.wait_state("UNPROTECTED", process=backup)
        for _ in range(5):
            ask_who_has(pair)  # the frozen side's guest would answer these when it returns
        returned = time.monotonic()
        primary.thaw()
        pair.a.wait_state("FENCED", timeout=10, process=primary)
        time.sleep(0.3)
        require(not frames.since(returned), "frames left the side that had been frozen", [f.hex() for f in frames.since(returned)][:5])
    client.finish()


def test_link_cut(pair):
    """Both live, both see the client, neither the other: exactly one goes on."""
    primary, backup = protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    time.sleep(0.3)
    pair.link(False)
    pair.wait(lambda: sorted([pair.a.status()["state"], pair.b.status()["state"]]) in (["LISTENING", "UNPROTECTED"], ["FENCED", "UNPROTECTED"]),
              40, "decision", lambda: str((pair.a.status(), pair.b.status())), lambda: not (primary.alive() and backup.alive()))
    loser = "a" if pair.a.status()["state"] == "FENCED" else "b"
    with Frames(pair, loser) as frames:
        ask_who_has(pair)
        client.finish()
        require(not frames.seen, "frames of the side that lost", len(frames.seen))
    assert_well(pair, before)
    winner = pair.b if loser == "a" else pair.a
    pair.link(True)
    time.sleep(0.3)
    require(winner.status()["state"] == "UNPROTECTED", "the winner changed its mind", winner.status())


def test_backup_frozen(pair):
    """The primary goes on without it, and it does not claim when it returns."""
    primary, backup = protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    backup.freeze()
    pair.a.wait_state("UNPROTECTED", process=primary)
    backup.thaw()
    pair.b.wait_state("LISTENING", process=backup)
    client.finish()
    assert_well(pair, before)


# --- the guest's own ends ---

def reset_while_protected(pair, reset):
    primary, backup = protected(pair)
    before = ask(pair, "status")
    reset()
    pair.wait(lambda: (ask(pair, "status", check=False) or before)["boot_id"] != before["boot_id"], 15, "new boot of the guest",
              lambda: str(pair.a.status()), lambda: not (primary.alive() and backup.alive()))
    require(pair.a.status()["state"] == "PROTECTED", "the reset ended the protection", pair.a.status())
    after = assert_well(pair)
    client = CountClient(pair)
    time.sleep(0.2)
    take_over(pair, primary, backup)
    client.finish()
    assert_well(pair, after)


def test_guest_resets(pair):
    reset_while_protected(pair, lambda: ask(pair, "reset"))


def test_guest_resets_by_keyboard(pair):
    reset_while_protected(pair, lambda: ask(pair, "reset-keyboard"))


def test_guest_triple_fault(pair):
    reset_while_protected(pair, lambda: ask(pair, "triple-fault"))


def test_reset_button(pair):
    reset_while_protected(pair, lambda: pair.a.perdure("reset", pair.vm))


def test_guest_powers_off(pair):
    primary, backup = protected(pair)
    ask(pair, "poweroff")
    statuses = primary.wait(10), backup.wait(10)
    require(statuses == (0, 0), "exit", statuses)
    require(not ask(pair, "status", wait_ms=300, check=False), "somebody took over from a guest that was switched off")


def test_guest_powers_off_unprotected(pair):
    primary = run_count(pair.a)
    ask(pair, "poweroff")
    require(primary.wait(10) == 0, "exit", primary.popen.returncode)


def test_guest_panics(pair):
    primary, backup = protected(pair)
    ask(pair, "panic")
    statuses = primary.wait(10), backup.wait(10)
    require(statuses == (1, 1), "exit", statuses)
    for process in primary, backup:
        require("panicked" in process.log(), "nobody says that the guest panicked", process.host.name)


# --- the user's wishes ---

def test_stop_and_resume(pair):
    protected(pair)
    before = assert_well(pair)
    client = CountClient(pair)
    pair.a.perdure("stop", pair.vm)
    status = pair.a.status()
    require(status["run_state"] == "paused" and status["state"] == "PROTECTED", "not stopped, or not protected", status)
    require(not ask(pair, "status", wait_ms=500, check=False), "a stopped guest answers")
    time.sleep(6)  # longer than the timeout: the two sides still talk
    require(pair.a.status()["state"] == "PROTECTED", "the protection ended", pair.a.status())
    pair.a.perdure("resume", pair.vm)
    client.finish()
    assert_well(pair, before)


def test_takeover_of_a_stopped_guest(pair):
    primary, backup = protected(pair)
    before = assert_well(pair)
    pair.a.perdure("stop", pair.vm)
    time.sleep(0.2)
    status = take_over(pair, primary, backup)
    require(status["run_state"] == "paused", "the guest was stopped, and now runs", status)
    pair.b.perdure("resume", pair.vm)
    assert_well(pair, before)


def test_quit(pair):
    primary, backup = protected(pair)
    before = assert_well(pair)
    refused = pair.a.perdure("quit", pair.vm, check=False)
    require(refused.returncode == 1 and "protected" in refused.stderr, "quit of a protected guest", refused)
    require(pair.a.status()["state"] == "PROTECTED", "the state", pair.a.status())
    pair.a.perdure("quit", pair.vm, "--force")
    require(primary.wait(10) == 0, "exit", primary.popen.returncode)
    pair.b.wait_state("UNPROTECTED", process=backup)
    assert_well(pair, before)
    pair.b.perdure("quit", pair.vm)
    require(backup.wait(10) == 0, "exit", backup.popen.returncode)


def test_quit_of_the_backup(pair):
    primary, backup = protected(pair)
    before = assert_well(pair)
    pair.b.perdure("quit", pair.vm)
    require(backup.wait(10) == 0, "exit", backup.popen.returncode)
    pair.a.wait_state("UNPROTECTED", timeout=10, process=primary)
    assert_well(pair, before)


def in_background(host, *command):
    return subprocess.Popen(host.command(command), env=host.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_end_while_the_arbiter_hangs(pair):
    """Neither a claim under way nor a command that waits for it keeps the process; the arbiter's program does not outlive it."""
    path, pid_file = os.path.join(pair.dir, "slow"), os.path.join(pair.dir, "slow-pid")
    with open(path, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\necho $$ > %s.new\nmv %s.new %s\nsleep 600\n" % (pid_file, pid_file, pid_file))
    os.chmod(path, 0o755)
    primary, backup = protected(pair, "--arbiter", "command:" + path)
    backup.kill()
    pair.a.wait_state("ASKING", timeout=5, process=primary)
    pair.wait(lambda: os.path.exists(pid_file), 5, "claim")
    with in_background(pair.a, "unprotect", pair.vm) as command:
        time.sleep(0.3)
        primary.popen.terminate()
        require(primary.wait(8) == 0, "exit", primary.popen.returncode)
        require(command.wait(5) == 1, "unprotect", command.returncode)
    with open(pid_file, encoding="ascii") as f:
        require(not os.path.exists("/proc/" + f.read().strip()), "the arbiter's program is still there")


def test_second_signal(pair):
    """The first one waits for a command that is under way; the second does not."""
    primary = run_count(pair.a)

    def listen():
        s = socket.socket()
        s.bind((pair.b.link, 7700))
        s.listen()
        return s

    silent = in_namespace(pair.b.netns, listen)
    with in_background(pair.a, "protect", pair.vm, "--to", pair.b.address, "--psk", pair.psk) as command:
        silent.settimeout(10)
        peer, _ = silent.accept()
        primary.popen.terminate()
        pair.wait(lambda: "ending" in primary.log(), 5, "first signal", primary.log)
        time.sleep(0.5)
        require(primary.alive(), "nothing was under way: the test could not fail")
        primary.popen.terminate()
        require(primary.wait(4) == 1, "exit", primary.popen.returncode)
        require(command.wait(5) == 1, "protect", command.returncode)
    peer.close()
    silent.close()


def test_powerdown_reaches_the_machine(pair):
    run_count(pair.a)
    pair.a.perdure("powerdown", pair.vm)  # `count` does not listen to the button
    assert_well(pair)


# --- console ---

def test_console_across_a_failover(pair):
    """Lines in order, none twice; what B prints follows what A printed."""
    primary, backup = protected(pair)
    ending = threading.Event()

    def talk():
        n = 0
        while not ending.is_set():
            ask(pair, "print", "line %d." % n, wait_ms=250, resend_ms=300, check=False)  # asked once, never again
            n += 1

    speaker = threading.Thread(target=talk)
    speaker.start()
    try:
        pair.wait(lambda: primary.output().count("line") > 20, 20, "lines on the primary's console")
        take_over(pair, primary, backup)
        pair.wait(lambda: backup.output().count("line") > 20, 20, "lines on the backup's console")
    finally:
        ending.set()
        speaker.join()
    lines = [[int(n) for n in re.findall(r"line (\d+)\.\n", p.output())] for p in (primary, backup)]
    both = lines[0] + lines[1]
    require(both == sorted(set(both)), "lines twice, or not in order", lines[0][-5:], lines[1][:5])
    require(lines[0] == list(range(len(lines[0]))), "lines are missing from the primary", lines[0][:5])


def test_console_is_the_same_before_and_after(pair):
    """Nothing was under way when the primary died: not a byte is lost, and the backup repeats none."""
    primary, backup = protected(pair)
    ask(pair, "print", "before")
    pair.wait(lambda: "before\n" in primary.output(), 5, "line on the console")
    time.sleep(0.2)
    take_over(pair, primary, backup)
    require("started" not in backup.output() and "before" not in backup.output(), "the backup repeats", backup.output())
    assert_well(pair)
    ask(pair, "print", "after", wait_ms=20000, resend_ms=20000)  # once: a request that came twice would be printed twice
    pair.wait(lambda: backup.output() == "after\n", 20, "line on the backup's console", backup.output)


# --- state files ---

def save_and_restore(pair, kernel, cpus, options=""):
    state = os.path.join(pair.dir, "state")
    first = run_count(pair.a, options, cpus, extra=["--save-on-exit", state], kernel=kernel)
    client = CountClient(pair) if kernel == "count" else None
    time.sleep(0.3)
    before = assert_well(pair)
    pair.a.perdure("quit", pair.vm)
    require(first.wait(20) == 0, "exit", first.popen.returncode)
    second = pair.a.start("run", "--name", pair.vm, "--restore", state, "--net", "id=net0,tap=tap0")
    pair.a.wait_state("UNPROTECTED", process=second)
    after = assert_well(pair, before)
    require(after["cpus"] == cpus, "processors", after)
    for cpu in range(cpus):
        require(after["heartbeat"][cpu] >= before["heartbeat"][cpu], "time went backwards", before, after)
    require(second.output() == "", "it printed something again", second.output())
    if client:
        client.finish()
    if kernel == "walk":
        rounds = after["rounds"][0]
        pair.wait(lambda: ask(pair, "status")["rounds"][0] > rounds + 2, 10, "more rounds over all pages")
        assert_well(pair, before)


def test_save_and_restore_count_1(pair):
    save_and_restore(pair, "count", 1)


def test_save_and_restore_count_2(pair):
    save_and_restore(pair, "count", 2)


def test_save_and_restore_walk_1(pair):
    save_and_restore(pair, "walk", 1, "size=8M")


def test_save_and_restore_walk_2(pair):
    save_and_restore(pair, "walk", 2, "size=8M")


def test_protect_a_restored_guest(pair):
    state = os.path.join(pair.dir, "state")
    first = run_count(pair.a, extra=["--save-on-exit", state])
    client = CountClient(pair)
    time.sleep(0.2)
    first.popen.terminate()
    require(first.wait(20) == 0, "exit", first.popen.returncode)
    second = pair.a.start("run", "--name", pair.vm, "--restore", state, "--net", "id=net0,tap=tap0")
    pair.a.wait_state("UNPROTECTED", process=second)
    backup = pair.b.standby()
    pair.a.protect(pair.b)
    time.sleep(0.2)
    take_over(pair, second, backup)
    client.finish()


# --- what the user sees ---

def test_check_changes_nothing(pair):
    primary = run_count(pair.a)
    backup = pair.b.standby()
    pair.a.protect(pair.b, "--check")
    require(pair.a.status()["state"] == "UNPROTECTED", "the primary", pair.a.status())
    pair.b.wait_state("LISTENING", timeout=5, process=backup)
    pair.a.protect(pair.b)
    take_over(pair, primary, backup)


SUMMARY = {"p50", "p99", "max"}
STATUS = {"name", "vcpus", "memory", "run_state", "role", "state", "pair", "generation", "epoch", "peer", "arbiter", "listen", "sync_pages_left", "disks",
          "checkpoint", "took_over_ns", "last_error", "report"}
CHECKPOINT = {"interval_us", "rate_hz", "count", "pause_us", "dirty_pages", "ack_us", "output_held_us", "bytes_per_epoch", "staging_full",
              "verified", "pages"}


def check_members(status):
    require(set(status) == STATUS, "members", sorted(set(status) ^ STATUS))
    checkpoint = status["checkpoint"]
    require(set(checkpoint) == CHECKPOINT, "members of checkpoint", sorted(set(checkpoint) ^ CHECKPOINT))
    for key in "pause_us", "dirty_pages", "ack_us", "output_held_us":
        require(set(checkpoint[key]) == SUMMARY, "members of " + key, checkpoint[key])
    require(set(checkpoint["pages"]) == {"zero", "delta", "full"}, "members of pages", checkpoint["pages"])


def test_status(pair):
    protected(pair, memory="48M", cpus=2)
    client = CountClient(pair)
    time.sleep(1.2)
    here, there = pair.a.status(), pair.b.status()
    client.finish()
    check_members(here)
    check_members(there)
    require((here["role"], here["state"], here["run_state"]) == ("primary", "PROTECTED", "running"), "primary", here)
    require((there["role"], there["state"], there["run_state"]) == ("backup", "STANDBY", "inmigrate"), "backup", there)
    require(here["pair"] == there["pair"] and re.fullmatch("[0-9a-f-]{36}", here["pair"]), "pair", here["pair"], there["pair"])
    require(here["generation"] == there["generation"], "generation", here, there)
    require(here["vcpus"] == 2 and here["memory"] == 48 << 20, "the machine", here)
    require(pair.b.link in here["peer"] and here["arbiter"].startswith("file:"), "peer or arbiter", here)
    checkpoint = here["checkpoint"]
    require(checkpoint["interval_us"] == 10000 and checkpoint["count"] > 10 and checkpoint["rate_hz"] > 5, "checkpoints", checkpoint)
    for key in "pause_us", "dirty_pages", "ack_us", "output_held_us":
        require(0 < checkpoint[key]["p50"] <= checkpoint[key]["p99"] <= checkpoint[key]["max"], key, checkpoint)
    require(checkpoint["bytes_per_epoch"] > 0 and checkpoint["pages"]["delta"] > 0, "pages", checkpoint)
    text = pair.a.perdure("status", pair.vm)
    for word in (pair.vm, "primary", "PROTECTED", "running", "2 vCPUs", "48 MiB", "generation", "checkpoints", "pause us"):
        require(word in text, "status lacks " + word, text)
    require(re.search(r"^web +primary +PROTECTED +running$", pair.a.perdure("list"), re.M), "list", pair.a.perdure("list"))
    require(re.search(r"^web +backup +STANDBY", pair.b.perdure("list"), re.M), "list", pair.b.perdure("list"))


def test_control_socket(pair):
    run_count(pair.a)
    one, two = Qmp(pair.a), Qmp(pair.a)
    names = {c["name"] for c in one.execute("query-commands")}
    for name in ("query-status", "query-name", "query-version", "query-commands", "query-block", "stop", "cont", "system_reset",
                 "system_powerdown", "quit", "perdure-status", "perdure-protect", "perdure-unprotect", "perdure-failover", "perdure-swap",
                 "perdure-listen"):
        require(name in names, "no command " + name, names)
    require(one.execute("query-status") == {"status": "running", "running": True}, "query-status")
    require(one.execute("query-name") == {"name": pair.vm}, "query-name")
    one.execute("stop")
    require(two.execute("query-status") == {"status": "paused", "running": False}, "query-status of a stopped guest")
    one.execute("cont")
    for client in one, two:
        require("timestamp" in client.wait_event("STOP") and client.wait_event("RESUME"), "events")
    one.execute("system_reset")
    one.wait_event("RESET")
    for line, error in (('{"execute": "no-such"}', "CommandNotFound"), ('{"execute": 7}', "GenericError"), ("[1, 2]", "GenericError"),
                        ('{"execute": "stop", "arguments": {"now": true}}', "GenericError"),
                        ('{"execute": "perdure-protect"}', "GenericError")):
        two.send(line)
        answer = two.answer()
        require(answer.get("error", {}).get("class") == error, line, answer)
    two.send('{"execute": "query-name", "id": {"x": [1]}}')
    require(two.answer()["id"] == {"x": [1]}, "id")
    garbage = Qmp(pair.a)
    garbage.send("}{ \x01\xff")
    garbage.close()
    require(one.execute("query-name") == {"name": pair.vm}, "after garbage of another client")


def test_events_of_a_failover(pair):
    primary = run_count(pair.a)
    backup = pair.b.standby()
    here, there = Qmp(pair.a), Qmp(pair.b)
    pair.a.protect(pair.b)
    texts = ""
    while "PROTECTED" not in texts.replace("UNPROTECTED", ""):
        texts += here.wait_event("PERDURE_STATE")["data"]["text"] + "\n"
    primary.kill()
    there.wait_event("RESUME")
    pair.b.wait_state("UNPROTECTED", process=backup)
    require(there.execute("query-status")["running"], "it does not run")
    texts = "".join(e["data"]["text"] + "\n" for e in there.events if e["event"] == "PERDURE_STATE")
    for state in "STANDBY", "ASKING", "PROMOTING", "UNPROTECTED":
        require(state in texts, "no event of " + state, texts)


def test_stale_socket_is_no_hindrance(pair):
    """SIGKILL leaves the control socket: `list` says so, and the same name can be run again."""
    run_count(pair.a).kill()
    gone = pair.a.perdure("status", pair.vm, check=False)
    require(gone.returncode == 1 and "no VM named web runs here" in gone.stderr, "status of a killed process", gone)
    require("no answer" in pair.a.perdure("list"), "list", pair.a.perdure("list"))
    run_count(pair.a)
    assert_well(pair)


def test_loopback_needs_no_key(pair):
    """Two processes of one host, over a unix socket: plain is fine there. Its guest has no network at all."""
    machine = ["--name", pair.vm]
    primary = pair.a.start("run", *machine, "--memory", "64M", "--kernel", "builtin:walk", "--cmdline", "size=8M rate=20000")
    primary.wait_output("running")
    near = pair.neighbour(pair.a)
    address = "unix:" + os.path.join(pair.dir, "near")
    backup = near.start("standby", *machine, "--listen", address)
    near.wait_state("LISTENING", process=backup)
    pair.a.perdure("protect", pair.vm, "--to", address, "--verify", "5")
    near.wait_state("STANDBY", process=backup)
    time.sleep(0.3)
    require(pair.a.status()["checkpoint"]["verified"] > 0, "nothing verified", pair.a.status())
    pair.a.perdure("swap", pair.vm)
    near.wait_state("PROTECTED", process=backup)
    require("TORN" not in primary.output() + backup.output(), "the guest found a torn page", primary.output(), backup.output())


if __name__ == "__main__":
    run_tests("pair", globals())

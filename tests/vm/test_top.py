#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`perdure top` on a terminal (tmux), with a real pair: test_top.py [--build build] [test_NAME...]"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from scenario import require, run_count, run_tests  # noqa: E402


class Terminal:
    """A command on a terminal of that size."""

    def __init__(self, host, *args, size=(160, 30)):
        self.pair = host.pair
        self.socket = os.path.join(self.pair.dir, "tmux-%d" % self.pair.next_number())
        command = host.command(args)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", size[0], "-y", size[1], "-e", "XDG_RUNTIME_DIR=" + host.dir,
                  "stty -echo; %s; echo it ended with $?; cat" % " ".join(command))

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.socket] + [str(a) for a in args], check=True, capture_output=True, text=True).stdout

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def shows(self, pattern, timeout=20):
        self.pair.wait(lambda: re.search(pattern, self.screen()), timeout, "/%s/ on the screen" % pattern, self.screen)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmux("kill-server")


def protected_pair(pair):
    primary = run_count(pair.a)
    backup = pair.b.standby()
    pair.a.protect(pair.b)
    return primary, backup


def test_a_pair_seen_from_both_sides(pair):
    primary, _ = protected_pair(pair)
    with Terminal(pair.a, "top") as a, Terminal(pair.b, "top") as b:
        a.shows(r"1 machine\b")
        a.shows(r"(?m)^web +primary +PROTECTED +running +[1-9]\d* +\d+ +\d")
        a.shows(r"\d+(\.\d)?(us|ms)/\d+(\.\d)?(us|ms)/\d+(\.\d)?(us|ms|s) .*" + re.escape(pair.b.address))
        b.shows(r"(?m)^web +backup +STANDBY +inmigrate")
        a.keys("Enter")
        a.shows(r"generation 1, epoch \d+")
        a.shows(r"arbiter file:")
        a.shows(r"rate +\[.*[.:=#*+-].*\]")
        a.keys("Left")
        a.shows("CKP/S")
        primary.kill()
        b.shows(r"(?m)^web +primary +UNPROTECTED +running")
        b.keys("Enter")
        b.shows("last change of role:")
        b.shows("events:")
        a.shows("no VM named web runs here|closed the control connection")
        a.keys("q")
        a.shows("it ended with 0")
        b.keys("q")
        b.shows("it ended with 0")


def test_machines_that_come_hang_and_end(pair):
    first = run_count(pair.a)
    with Terminal(pair.a, "top") as t:
        t.shows(r"(?m)^web +none|^web +primary|^web .*UNPROTECTED")
        second = pair.a.standby(name="zebra")
        t.shows(r"(?m)^zebra +\w+ +LISTENING")
        t.shows("2 machines")
        t.keys("Down", "Enter")
        t.shows(r"^zebra ")
        t.keys("Escape")
        first.freeze()
        t.shows(r"(?m)^web +web: its process does not answer")
        t.shows(r"(?m)^zebra +\w+ +LISTENING")
        first.thaw()
        t.shows(r"(?m)^web .*UNPROTECTED")
        pair.a.perdure("quit", "zebra")
        require(second.wait() == 0, "exit of the standby")
        t.shows("1 machine ", timeout=30)
        require("zebra" not in t.screen(), "what ended is still there", t.screen())
        t.keys("q")
        t.shows("it ended with 0")


def test_any_size(pair):
    run_count(pair.a)
    with Terminal(pair.a, "top", size=(15, 3)) as t:
        t.shows("15x3 is too sma")
        for size in ((40, 5), (80, 24), (10, 2), (200, 50)):
            t.tmux("resize-window", "-x", size[0], "-y", size[1])
            t.shows("(?m)^web .*" if size[0] > 20 else r"\d+x\d+ is to")
        t.tmux("resize-window", "-x", 100, "-y", 20)
        t.keys("q")
        t.shows("it ended with 0")


def test_one_by_name(pair):
    with Terminal(pair.a, "top", "web") as t:
        t.shows("no VM named web runs here")
        run_count(pair.a)
        t.shows("UNPROTECTED, guest running")
        t.keys("q")
        t.shows("it ended with 0")


def test_interrupted(pair):
    """The terminal is left as it was."""
    with Terminal(pair.a, "top") as t:
        t.shows("no machine runs")
        t.keys("C-c")
        t.shows("it ended with|\\$")
        require("no machine runs" not in t.screen(), "the screen is still top's", t.screen())


def test_no_terminal(pair):
    for env, want in (({}, "needs a terminal"), ({"TERM": "nonsense"}, "needs a terminal")):
        done = subprocess.run(pair.a.command(["top"]), env=dict(pair.a.env(), **env), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=20, check=False)
        require(done.returncode == 1 and want in done.stderr and done.stderr.count("\n") == 1 and not done.stdout, "answer", done)
    with Terminal(pair.a, "top", "--interval", "1ms") as t:
        t.shows("--interval: at least")
        t.shows("it ended with 2")
    with Terminal(pair.a, "top", "not/a/name") as t:
        t.shows("is not a VM name")
        t.shows("it ended with 1")


if __name__ == "__main__":
    run_tests("top", globals())

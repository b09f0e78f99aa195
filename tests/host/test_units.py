#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The service units where they have to be right: a host comes back, and systemd starts what is enabled there. No second copy runs.

    test_units.py [--perdure build/perdure] [--long] [WORD...]

Hosts with systemd (units.py), redis on the guest's disk (test_disks.py). perdure@web is enabled on both hosts, and so is
perdure-standby.socket: nobody starts a standby by hand.
"""
import runner
import units
from cluster import GUEST_BOOT_ATTEMPTS, GUEST_BOOT_TIMEOUT, GUEST_CPU, GUEST_MEMORY, ARBITER, DiskCluster
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

SOME = 10
KEY = "/etc/perdure/pair.key"


class UnitCluster(DiskCluster):
    """Two hosts of an administrator's: configured once, and again like that whenever power comes back."""

    security = f"--psk {KEY}"
    logs = "journalctl --no-pager -n 200 -u 'perdure*'"

    def __enter__(self):
        super().__enter__()
        self.a.run(f"perdure keygen {KEY}")
        key = self.a.run(f"base64 {KEY}").out
        for host in (self.a, self.b):
            host.run(f"[ -e {KEY} ] || {{ umask 077; echo '{key}' | base64 -d >{KEY}; }}")
            for name, text in self.configuration().items():
                host.run(f"cat >/etc/perdure/{name} <<'EOF'\n{text}EOF")
            host.run("systemctl enable --now perdure-standby.socket && sync")
        return self

    def configuration(self):
        common = f"psk {KEY}\narbiter {ARBITER}\n"
        return {"etcd.conf": f"ETCDCTL_ENDPOINTS={self.etcd.endpoint}\n",
                "standby.conf": f"{common}[web]\ndisk id=root,path={self.image}\nnet id=net0,tap=tap0\nconsole file:/run/guest.log\n",
                "web.conf": f"{common}listen shared\ncpus 1\ncpu {GUEST_CPU}\nmemory {GUEST_MEMORY}\nkernel /guest/vmlinuz\ninitrd /guest/initrd\n"
                            f"cmdline {self.cmdline}\ndisk path={self.image},id=root\nnet tap=tap0,id=net0,mac={GUEST_MAC}\n"
                            "console file:/run/guest.log\n"}

    def wait_guest(self, host):
        """Until the guest that the unit has started, or starts, serves; a boot that hangs is tried again."""
        for attempt in range(1, GUEST_BOOT_ATTEMPTS + 1):
            try:
                wait_until(lambda: self.guest_boots(host) or self.unit(host) == "failed", GUEST_BOOT_TIMEOUT, "the unit's guest is ready")
                break
            except TimeoutError:
                if attempt == GUEST_BOOT_ATTEMPTS:
                    raise
                print(f"    the guest hangs in its boot {attempt} on host {host.name}, once more", flush=True)
                host.run("systemctl kill -s KILL perdure@web; rm -f /run/guest.log; sleep 1; systemctl start perdure@web", timeout=120)
        assert self.unit(host) == "active", self.journal(host)

    @staticmethod
    def unit(host):
        """The state of perdure@web: active, activating, failed, ..."""
        return host.run("systemctl is-active perdure@web", check=False).out.strip()

    @staticmethod
    def journal(host):
        """What perdure@web has said in this boot of the host."""
        return host.run("journalctl --no-pager -o cat _SYSTEMD_UNIT=perdure@web.service").out

    def assert_unit_refused(self, host, *words):
        """The unit has tried by itself, and its machine's disk was not to be run: one line says so."""
        wait_until(lambda: self.unit(host) in ("failed", "active"), 60, f"the unit on host {host.name} has tried")
        assert self.unit(host) == "failed", "a second copy runs"
        self.assert_one_line(host, self.journal(host), *words)

    def enable_everywhere(self):
        """As one does once the pair is protected."""
        for host in (self.a, self.b):
            host.run("systemctl enable perdure@web && sync")

    def unmount(self, host):
        host.run("systemctl stop perdure-standby.socket perdure-standby.service; umount /etc/perdure /etc/systemd /data")

    def protected_units(self):
        self.a.run("systemctl start perdure@web", timeout=90)
        self.wait_guest(self.a)
        self.protect(self.a, self.b)
        self.enable_everywhere()


def test_power_comes_back(cluster):
    """A loses power, B goes on. A is back: its unit's start is refused; its socket takes the standby. Then the same the other way round."""
    a, b = cluster.a, cluster.b
    cluster.protected_units()
    with Client() as client:
        for lost, left in ((a, b), (b, a)):
            client.wait_more(SOME)
            lost.power_cut()
            client.wait_more(SOME, timeout=90)
            cluster.wait_took_over(left)
            lost.start()
            cluster.assert_unit_refused(lost, "older than the copy", "start it as a standby")
            client.wait_more(SOME)
            cluster.protect(left, lost)
        client.wait_more(SOME)
        client.stop()
    cluster.assert_hosts_showed("A", "B", "A")
    cluster.end_guest(a)
    cluster.check_disks(a)


def test_power_comes_back_on_both(cluster):
    """Both units start by themselves: A's machine runs, B's is refused and becomes the standby; stopping A's unit hands the guest to B."""
    a, b = cluster.a, cluster.b
    cluster.protected_units()
    with Client() as client:
        client.wait_more(SOME)
        cut_power(a, b)
        client.stop()
    start_hosts(b, a)
    cluster.assert_unit_refused(b, "standby's")
    cluster.wait_guest(a)
    with Client(after=client) as client:
        client.wait_more(SOME)
        cluster.protect(a, b)
        client.wait_more(SOME)
        a.run("systemctl stop perdure@web", timeout=150)
        assert cluster.unit(a) == "inactive", cluster.journal(a)
        client.wait_more(SOME, timeout=90)
        client.stop()
    cluster.wait_took_over(b)
    cluster.end_guest(b)
    cluster.check_disks(b)


if __name__ == "__main__":
    runner.main(globals(), "perdure's units on hosts with systemd", UnitCluster, out=f"{images.TOP}/build/host-units", more=units.more)

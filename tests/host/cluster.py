# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with redis under perdure on test hosts: the steps that every scenario is made of."""
import filecmp
import json

from datadisk import GUEST_DISK, check_guest_disk
from hosts import *  # pylint: disable=wildcard-import,unused-wildcard-import

PORT = 7700
ARBITER = "command:/usr/lib/perdure/arbiter-etcd"
GUEST_MEMORY = "192M"
# Without XSAVE: the emulated hosts do not let KVM see the guest's XSETBV, so KVM would load a wrong XCR0.
GUEST_CPU = "v2"
GUEST_CMDLINE = f"console=ttyS0 quiet panic=1 guest.ip={GUEST_ADDRESS}/24"
# Emulated hosts on a busy machine: no time of these is a promise of perdure.
INTERVAL, TIMEOUT = "100ms", "10s"
GUEST_BOOT_TIMEOUT, GUEST_BOOT_ATTEMPTS = 90, 3
SYNC_TIMEOUT, TAKEOVER_TIMEOUT = 120, 90


class Cluster:
    """Two fresh hosts and an etcd. `with Cluster(...) as c:` ends all of it."""

    cmdline = GUEST_CMDLINE
    devices = ""  # that every guest has, as both sides are given them
    security = "--insecure"
    logs = "tail -n 100 /run/perdure-*.log"

    def __init__(self, net, image, log_dir):
        self.a = self.make_host(net, "A", image, log_dir)
        self.b = self.make_host(net, "B", image, log_dir)
        self.etcd, self._captures, self._log_dir = None, {}, log_dir

    def make_host(self, net, name, image, log_dir):
        return Host(net, name, image, log_dir=log_dir)

    def __enter__(self):
        try:
            self.etcd = Etcd()
            start_hosts(self.a, self.b)
            self._captures = {host.name: host.capture() for host in (self.a, self.b)}
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind:
            self._keep_logs()
        self.close()

    def close(self):
        for capture in self._captures.values():
            capture.stop()
        self.a.close()
        self.b.close()
        if self.etcd:
            self.etcd.stop()

    def _keep_logs(self):
        """What the processes in the hosts said lies in their RAM: fetched before they go."""
        for host in (self.a, self.b):
            try:
                text = host.run(f"{self.logs} 2>&1; tail -n 100 /run/guest.log 2>&1; perdure status web --json 2>&1",
                                timeout=20, check=False).out
            except Exception as error:  # pylint: disable=broad-except
                text = f"(host {host.name}: {error!r})"
            with open(f"{self._log_dir}/failed-{host.name}.log", "a", encoding="utf-8") as f:
                f.write(text)
            print(f"--- host {host.name}\n{text}")

    # perdure

    def spawn(self, host, what, arguments):
        """One of the two long-lived processes; the arbiter script inherits where etcd is."""
        return host.spawn(f"rm -f /run/guest.log; ETCDCTL_ENDPOINTS={self.etcd.endpoint} exec perdure {what} --name web {arguments} "
                          f">/run/perdure-{what}.log 2>&1")

    def run_guest(self, host, cpus=1, more=""):
        """Boots the guest and returns when it serves; a boot that hangs is tried again."""
        for attempt in range(1, GUEST_BOOT_ATTEMPTS + 1):
            job = self.spawn(host, "run", self.machine(cpus, more))
            try:
                wait_until(lambda: self.guest_boots(host) or not job.running, GUEST_BOOT_TIMEOUT, "the guest is ready")
            except TimeoutError:
                if attempt == GUEST_BOOT_ATTEMPTS:
                    raise
                print(f"    the guest hangs in its boot {attempt} on host {host.name}, once more", flush=True)
                job.kill(9)
                job.wait(30)
                continue
            if job.running:
                return job
            raise CommandFailed(f"perdure run ended with {job.code}: {host.run('cat /run/perdure-run.log').out}")
        return None

    def machine(self, cpus=1, more=""):
        """The options of `perdure run`."""
        return (f"--cpus {cpus} --cpu {GUEST_CPU} --memory {GUEST_MEMORY} --kernel /guest/vmlinuz --initrd /guest/initrd "
                f"--cmdline '{self.cmdline}' --net tap=tap0,id=net0,mac={GUEST_MAC} --console file:/run/guest.log {self.devices} {more}")

    @staticmethod
    def guest_boots(host):
        """How often the guest's console said that redis and guestd are there."""
        return int(host.run("grep -c GUEST-READY /run/guest.log", check=False).out or 0)

    def restore_guest(self, host, state, more=""):
        """Goes on from a state file on @host."""
        return self.spawn(host, "run", f"--restore {state} --net id=net0,tap=tap0 --console file:/run/guest.log {more}")

    def standby(self, host, more=""):
        """Makes @host ready to be protected to."""
        job = self.spawn(host, "standby", f"--listen tcp:0.0.0.0:{PORT} --net id=net0,tap=tap0 --insecure --arbiter {ARBITER} "
                          f"--console file:/run/guest.log {self.devices} {more}")
        self.wait_state(host, "LISTENING", timeout=30)
        return job

    def protect(self, host, peer, more=""):
        """Protects the guest on @host to @peer, and returns when both say so."""
        host.run(self.protect_command(peer, more), timeout=SYNC_TIMEOUT)
        self.wait_protected(host, peer)

    def protect_command(self, peer, more=""):
        return (f"perdure protect web --to tcp:{peer.replication_address}:{PORT} --interval {INTERVAL} --timeout {TIMEOUT} "
                f"--arbiter {ARBITER} {self.security} {more}")

    def wait_protected(self, host, peer, timeout=SYNC_TIMEOUT):
        self.wait_state(host, "PROTECTED", timeout=timeout)
        self.wait_state(peer, "STANDBY", timeout=30)

    def protected_guest(self, cpus=1, devices="", protect=""):
        """The start of every scenario: the guest on A, protected to B. Returns the jobs of both sides.

        devices     more of them, as both sides are given them         protect     more options of `perdure protect`
        """
        run = self.run_guest(self.a, cpus, devices)
        standby = self.standby(self.b, devices)
        self.protect(self.a, self.b, protect)
        return run, standby

    @staticmethod
    def status(host):
        """What `perdure status` says there, or {}."""
        job = host.run("perdure status web --json", timeout=30, check=False)
        return json.loads(job.out) if job.code == 0 else {}

    def state(self, host):
        return self.status(host).get("state", "").upper()

    def wait_state(self, host, *states, timeout=TAKEOVER_TIMEOUT):
        """Waits for one of @states and returns it."""
        seen = []

        def reached():
            seen[:] = [self.state(host)]
            return seen[0] in states and seen[0]

        try:
            return wait_until(reached, timeout, f"host {host.name} is {' or '.join(states)}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is '{seen[0]}'") from None

    def wait_took_over(self, host):
        """Until the former backup runs the guest alone."""
        self.wait_state(host, "UNPROTECTED")

    def settled(self):
        """After the two have lost each other: the name of the side that goes on alone, once the other has given way."""
        state_a, state_b = self.state(self.a), self.state(self.b)
        assert not (state_a == state_b == "UNPROTECTED"), "both sides run"
        if state_a == "UNPROTECTED" and state_b in ("STANDBY", "LISTENING", ""):
            return "A"
        if state_b == "UNPROTECTED" and state_a in ("FENCED", ""):
            return "B"
        return None

    @staticmethod
    def end_perdure(host):
        host.run("perdure quit web; killall perdure; while pidof perdure >/dev/null; do sleep 0.1; done", timeout=30)

    def replace(self, host):
        """Power comes back on a host that was cut off, and it becomes a standby."""
        host.start()
        return self.standby(host)

    # What the wire showed

    def spans(self):
        """Of the guest's life as it was seen from outside so far; raises OutputEscaped."""
        return beacon_spans(self._captures)

    def assert_hosts_showed(self, *names):
        """The guest was seen from these hosts, in this order, and no moment of it from two."""
        spans = self.spans()
        assert [span.host for span in spans] == list(names), spans

    def guest_frames(self, host, since):
        return self._captures[host.name].guest_frames(since)


class DiskCluster(Cluster):
    """Hosts with disks (datadisk.py), and redis on a disk of the guest's: A's has a file system, B's is of the same size.

    The guest's disk may be lengthened behind its file system: that makes a sync last.
    """

    cmdline = f"{GUEST_CMDLINE} guest.disk=/dev/vda"
    image = f"/data/{GUEST_DISK}"
    devices = f"--disk path={image},id=root"

    def make_host(self, net, name, image, log_dir):
        return Host(net, name, image, log_dir=log_dir, disk=DataDisk(f"{log_dir}/data-{name}", formatted=name == "A"))

    def lengthen_disks(self, mib):
        """What A's has there is noise, B's are zeroes. To be flushed: a standby's sync is to meet it after a power cut too."""
        for host, source in ((self.a, "/dev/urandom"), (self.b, "/dev/zero")):
            host.run(f"dd if={source} bs=1M count={mib} 2>/dev/null >>{self.image} && sync", timeout=120)

    def make_noise(self, host, mib):
        """Makes the end of the disk of a host that does not run differ from the other side's."""
        host.run(f"size=$(stat -c %s {self.image}); dd if=/dev/urandom of={self.image} bs=1M count={mib} "
                 f"seek=$((size / 1048576 - {mib})) conv=notrunc 2>/dev/null && sync", timeout=120)

    def role(self, host):
        """What the record beside the disk says, or ""."""
        return host.run(f"sed -n 's/^role //p' {self.image}.perdure", check=False).out.strip()

    def wait_role(self, host, role):
        wait_until(lambda: self.role(host) == role, 30, f"the record on host {host.name} says {role}")

    def assert_refused(self, host, *words):
        """`perdure run` on a host that has no perdure says no, in one line with these words, and leaves nothing running."""
        job = host.run(f"ETCDCTL_ENDPOINTS={self.etcd.endpoint} perdure run --name web {self.machine()}", check=False)
        assert job.code == 1, (job.code, job.err)
        self.assert_one_line(host, job.err, *words)

    def assert_one_line(self, host, text, *words):
        lines = [line for line in text.splitlines() if not line.startswith("arbiter-etcd:")]
        assert len(lines) == 1 and all(word in lines[0] for word in (self.image, *words)), lines
        assert host.run("pidof perdure", check=False).code == 1, "something runs"
        print(f"    {host.name}: {lines[0]}", flush=True)

    def protect_until(self, host, peer, left):
        """Begins to protect, and returns when at most this share of the disk is left to sync, and not nothing."""
        host.spawn(self.protect_command(peer))

        def reached():
            disks = self.status(host)["disks"]
            return disks["sync_total"] and 0 < disks["sync_left"] <= disks["sync_total"] * left

        wait_until(reached, SYNC_TIMEOUT, "a part of the disk is synced")

    def end_guest(self, host):
        """By its power button: its file systems are unmounted."""
        host.run("perdure powerdown web; while perdure status web >/dev/null 2>&1; do sleep 0.1; done", timeout=90)
        host.run("grep -q 'GUEST-SHUTDOWN its disk is whole' /run/guest.log")

    def check_disks(self, *hosts, equal=False):
        """Judges from outside what lies on the hosts' disks, after their guest has ended there. They are off then."""
        images = []
        for host in hosts:
            self.unmount(host)
            host.power_cut()
            images.append(host.disk.fetch(f"{self._log_dir}/web-{host.name}.img"))
            check_guest_disk(images[-1])
        assert not equal or filecmp.cmp(*images, shallow=False), "the disks of the two sides differ"

    def unmount(self, host):
        host.run("umount /data")

    def end_protected_guest(self, primary, backup):
        """The end of most scenarios: both sides end, with the same whole disk."""
        self.end_guest(primary)
        wait_until(lambda: self.state(backup) in ("", "LISTENING"), 60, f"host {backup.name} has seen the end")
        self.end_perdure(backup)
        self.check_disks(primary, backup, equal=True)

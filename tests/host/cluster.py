# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with redis under perdure on test hosts: the steps that every scenario is made of."""
import json

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

    def __init__(self, net, image, log_dir):
        self.a = Host(net, "A", image, log_dir=log_dir)
        self.b = Host(net, "B", image, log_dir=log_dir)
        self.etcd, self._captures, self._log_dir = None, {}, log_dir

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
                text = host.run("tail -n 100 /run/perdure-*.log /run/guest.log 2>&1; perdure status web --json 2>&1",
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
            job = self.spawn(host, "run", f"--cpus {cpus} --cpu {GUEST_CPU} --memory {GUEST_MEMORY} --kernel /guest/vmlinuz "
                              f"--initrd /guest/initrd --cmdline '{GUEST_CMDLINE}' "
                              f"--net tap=tap0,id=net0,mac={GUEST_MAC} --console file:/run/guest.log {more}")
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
                          f"--console file:/run/guest.log {more}")
        self.wait_state(host, "LISTENING", timeout=30)
        return job

    def protect(self, host, peer, more=""):
        """Protects the guest on @host to @peer, and returns when both say so."""
        host.run(f"perdure protect web --to tcp:{peer.replication_address}:{PORT} --interval {INTERVAL} "
                 f"--timeout {TIMEOUT} --arbiter {ARBITER} --insecure {more}",
                 timeout=SYNC_TIMEOUT)
        self.wait_protected(host, peer)

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

# SPDX-License-Identifier: GPL-2.0-or-later
# Tests over test hosts (hosts.py): Linux guests under nested KVM in emulated machines. Minutes, not seconds.

# Words that choose scenarios: make check-host HOST_TESTS="a_power_cut a_frozen"
HOST_TESTS ?=

host_programs := $(addprefix $(B)/tests/vm/,test_machine test_machine_irq test_machine_state)

check-host check-host-long: $(B)/perdure $(host_programs)
	@scripts/install-packages host
	$(Q)status=0; for t in machine linux devices redis disks migrate units; do \
		tests/host/test_$$t.py --perdure $(B)/perdure $(HOST_LONG) $(HOST_TESTS) || status=1; done; exit $$status
check-host-long: HOST_LONG := --long

# The machine on another KVM, one power cut and one freeze: what the continuous integration has time for.
check-host-brief: $(B)/perdure $(host_programs)
	@scripts/install-packages host
	$(Q)status=0; tests/host/test_machine.py --perdure $(B)/perdure || status=1; \
		tests/host/test_redis.py --perdure $(B)/perdure a_power_cut a_frozen || status=1; exit $$status

# make demo with its Linux guest.
check-demo-linux: demo-programs
	@scripts/install-packages host
	$(Q)tests/host/test_demo.py --build $(B)

# Does the harness itself hold? Needs no perdure.
check-host-selftest:
	@scripts/install-packages host
	$(Q)tests/host/selftest.py

.PHONY: check-host check-host-brief check-host-long check-demo-linux check-host-selftest

# SPDX-License-Identifier: GPL-2.0-or-later
# Tests over test hosts (hosts.py): Linux guests under nested KVM in emulated machines. Minutes, not seconds.

# Does the harness itself hold? Needs no perdure.
check-host-selftest:
	$(Q)tests/host/selftest.py

.PHONY: check-host-selftest

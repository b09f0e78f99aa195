# SPDX-License-Identifier: GPL-2.0-or-later
# Rules that a program can check: layers, headers, licences, sizes, banned calls, layout, shell scripts.

check-lint:
	$(Q)tests/run-programs lint $(sort $(wildcard tests/lint/*.sh))

format:
	$(Q)tests/lint/files c | xargs clang-format -i

.PHONY: check-lint format

# SPDX-License-Identifier: GPL-2.0-or-later
# The small guests under QEMU (TCG, and /dev/kvm where there is one), and the client of `count`.

count_client := $(B)/tests/vm/count_client

$(count_client): $(B)/tests/vm/count_client.o
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@

check-guests-qemu: guests $(count_client)
	$(Q)tests/vm/guests_under_qemu.sh $(B)

.PHONY: check-guests-qemu
-include $(B)/tests/vm/count_client.d

# SPDX-License-Identifier: GPL-2.0-or-later
# Programs that use the installed headers and the library, nothing else of the project: built as a user of the library would.

example_src := $(wildcard examples/*.c)
example_bin := $(example_src:%.c=$(B)/%)

$(example_bin): $(B)/%: %.c $(B)/libperdure.a $(wildcard include/perdure/*.h)
	@mkdir -p $(@D)
	@echo "  EX    $<"
	$(Q)$(CC) -std=gnu11 $(WARN) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -Iinclude -pthread $< $(B)/libperdure.a $(ALL_LIBS) \
	$(LDFLAGS) -o $@

all: $(example_bin)

check-unit: $(example_bin)

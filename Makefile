# SPDX-License-Identifier: GPL-2.0-or-later
#
# Perdure, one file. Targets people type:
#
#   make              libperdure (static and shared) and the program, into build/
#   make demo         the main job, in two minutes (installs what is missing)
#   make check        every quick test (installs what is missing); `make check-unit` etc. run one tier
#   make check-host   Linux and redis over two test hosts;  check-long: longer sweeps
#   make bench-NAME   one benchmark of bench/
#   make install PREFIX=/usr/local
#
# Knobs: CC=gcc|clang, SAN=address,undefined | thread (each has a build directory of its own), V=1.

VERSION := 0.1.0
PREFIX  ?= /usr/local
CC      ?= gcc
SAN     ?=
comma   := ,
B       := build$(if $(filter-out gcc cc,$(CC)),-$(notdir $(CC)))$(if $(SAN),-$(subst $(comma),-,$(SAN)))
Q       := $(if $(V),,@)

LIB_LAYERS  := base stream registry guest block net engine
PROG_LAYERS := device machine control cli

PACKAGES := jansson gnutls liburing liblz4
PROG_PACKAGES := ncursesw # of the program alone
CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wvla -Wimplicit-fallthrough -Wstrict-prototypes -Wmissing-prototypes -Werror \
	-Wno-gnu-variable-sized-type-not-at-end # struct kvm_msrs and its entries; gcc does not know it, nor mind
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -DPERDURE_VERSION='"$(VERSION)"' -Iinclude -Isrc -I$(B)/gen -fPIC -pthread \
	$(WARN) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
	$(shell pkg-config --cflags $(PACKAGES))
ALL_LDFLAGS = -pthread $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
ALL_LIBS = $(shell pkg-config --libs $(PACKAGES))
PROG_LIBS = $(ALL_LIBS) $(shell pkg-config --libs $(PROG_PACKAGES))

lib_src  := $(foreach l,$(LIB_LAYERS),$(wildcard src/$(l)/*.c))
prog_src := $(foreach l,$(PROG_LAYERS),$(wildcard src/$(l)/*.c))
lib_obj  := $(lib_src:%.c=$(B)/%.o)
prog_obj := $(prog_src:%.c=$(B)/%.o)

all: $(B)/libperdure.a $(B)/libperdure.so $(B)/perdure

$(B)/%.o: %.c | $(B)/flags
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

# A change of flags rebuilds: the file is touched only when its content changes.
$(B)/flags: FORCE
	@mkdir -p $(B)
	@echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' > $@

# Everything the library does not export is made local, also in the static one.
$(B)/libperdure.a: $(lib_obj) src/libperdure.map
	@echo "  AR    $@"
	$(Q)rm -f $@ && $(CC) -r -nostdlib $(lib_obj) -o $(B)/libperdure.o && \
	sed -n 's/^\t\([a-z_*]*\);$$/\1/p' src/libperdure.map | grep -v '^\*$$' > $(B)/exported && \
	objcopy --wildcard --keep-global-symbols=$(B)/exported $(B)/libperdure.o && ar rcs $@ $(B)/libperdure.o

$(B)/libperdure.so: $(lib_obj) src/libperdure.map
	@echo "  LD    $@"
	$(Q)$(CC) -shared -Wl,-soname,libperdure.so.0 -Wl,--version-script=src/libperdure.map \
	$(ALL_LDFLAGS) $(lib_obj) $(ALL_LIBS) -o $@

$(B)/perdure: $(prog_obj) $(lib_obj)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(PROG_LIBS) -o $@

# Parts with rules of their own.
include $(sort $(wildcard examples/*.mk guests/*.mk tests/*.mk tests/*/*.mk bench/*.mk scripts/*.mk))

clean:
	rm -rf build build-*

FORCE:
.PHONY: all clean FORCE
.DELETE_ON_ERROR:

-include $(lib_obj:.o=.d) $(prog_obj:.o=.d)

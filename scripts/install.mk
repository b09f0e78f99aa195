# SPDX-License-Identifier: GPL-2.0-or-later
# make install PREFIX=/somewhere [DESTDIR=/staging]: library, headers, libperdure.pc, program, man pages, arbiter script,
# service units, shell completion.

dest := $(DESTDIR)$(PREFIX)

$(B)/libperdure.pc: scripts/libperdure.pc.in $(B)/flags
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@PACKAGES@|$(PACKAGES)|' $< > $@

install: all $(B)/libperdure.pc
	install -d $(dest)/bin $(dest)/lib/pkgconfig $(dest)/include/perdure $(dest)/share/perdure $(dest)/share/man/man1 \
	$(dest)/share/man/man5 $(dest)/lib/systemd/system $(dest)/share/bash-completion/completions
	install -m 755 $(B)/perdure $(dest)/bin/
	install -m 644 $(B)/libperdure.a $(dest)/lib/
	install -m 755 $(B)/libperdure.so $(dest)/lib/libperdure.so.0
	ln -sf libperdure.so.0 $(dest)/lib/libperdure.so
	install -m 644 $(B)/libperdure.pc $(dest)/lib/pkgconfig/
	install -m 644 include/perdure/*.h $(dest)/include/perdure/
	$(if $(wildcard contrib/arbiter-*),install -m 755 $(wildcard contrib/arbiter-*) $(dest)/share/perdure/)
	install -m 644 docs/man/*.1 $(dest)/share/man/man1/
	install -m 644 docs/man/*.5 $(dest)/share/man/man5/
	install -m 644 contrib/systemd/*.socket $(dest)/lib/systemd/system/
	for unit in contrib/systemd/*.in; do \
	    sed 's|@PREFIX@|$(PREFIX)|' $$unit > $(dest)/lib/systemd/system/$$(basename $$unit .in) || exit 1; done
	install -m 644 contrib/completion/perdure $(dest)/share/bash-completion/completions/

.PHONY: install

# SPDX-License-Identifier: GPL-2.0
#
# Two makefiles in one: the kernel's build system reads it with KERNELRELEASE
# set, a user without.

ifneq ($(KERNELRELEASE),)

# A module, whatever the configuration of the kernel says.
export CONFIG_BLK_DEV_LOOP_RS := m
obj-m += drivers/block/loop_rs/

else

# Each can be set on the command line or in the environment.
export LOOP_RS_CACHE LOOP_RS_SERIES LOOP_RS_SUITE LOOP_RS_KERNEL_SUITE
export LOOP_RS_FLAVOUR LOOP_RS_ARCH LOOP_RS_MIRROR LOOP_RS_ACCEL

# Several targets share one set-up.
.NOTPARALLEL:

.PHONY: all
all:
	@scripts/build $(KARGS)
	@scripts/build loop-top

.PHONY: loop-top
loop-top:
	@scripts/build loop-top

.PHONY: run
run:
	@scripts/run

.PHONY: test
test:
	@scripts/test $(TESTS)

.PHONY: test-all
test-all:
	@scripts/test --all $(TESTS)

.PHONY: matrix
matrix:
	@scripts/matrix $(CELLS)

.PHONY: test-the-tests
test-the-tests:
	@scripts/test-the-tests

.PHONY: test-peers
test-peers:
	@scripts/test-peers $(TESTS)

.PHONY: isolation
isolation:
	@scripts/isolation $(SCENARIOS)

.PHONY: test-debug
test-debug:
	@scripts/test --debug $(TESTS)

.PHONY: in-tree
in-tree:
	@scripts/in-tree $(TESTS)

.PHONY: bench
bench:
	@scripts/bench

.PHONY: shell
shell: all
	@scripts/vm -i --timeout 0 -- /loop_rs/scripts/guest-shell

.PHONY: setup
setup:
	@scripts/setup

.PHONY: update
update:
	@scripts/setup --update

.PHONY: debug
debug:
	@scripts/build --debug $(KARGS)

.PHONY: clippy
clippy:
	@scripts/build clippy

.PHONY: lint
lint: all clippy
	@scripts/lint

.PHONY: fmt fmt-check
fmt fmt-check:
	@scripts/build $@

.PHONY: deb
deb:
	@scripts/package/deb

.PHONY: test-packages
test-packages:
	@scripts/package/test $(CASES)

.PHONY: install
install:
	@scripts/package/install

.PHONY: uninstall
uninstall:
	@scripts/package/install --uninstall

.PHONY: clean
clean:
	rm -rf build

.PHONY: distclean
distclean: clean
	@scripts/setup --remove

.PHONY: help
help:
	@scripts/help

endif

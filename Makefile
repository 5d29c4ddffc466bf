# SPDX-License-Identifier: Apache-2.0
# make            out/rootlink and out/rootlink-attach (static, Embedded Swift), out/rootlinkd and
#                 out/rootlink-mkinitramfs
# make ARCH=arm64  the same client for 64-bit ARM, with Debian's packages of it: out/arm64
# make rdma       out/rootlink-rdma, the client that also speaks RNBD over RDMA
# make demo       a diskless Debian boots from rootlinkd in QEMU
# make test       everything that a change must pass
# make test-faults  faults of every kind, long ones too, and what they cost
# make test-boots  a Debian boots in every way, those too that make test leaves out
# make test-rdma  RNBD beside Linux's own, in guests with soft-RoCE; logs stay in out/logs/rdma
# make bench      rootlinkd beside nbd-server, nbdkit, qemu-nbd and a bare responder: out/bench
# make bench-rdma rootlinkd beside Linux's rnbd-server, and rootlink beside its rnbd-client
# make bench-boot ours beside Debian's nbd-client hook, and the one-file initramfs beside both
# make bench-ublk a ublk device beside the kernel's nbd driver
# make install    DESTDIR= PREFIX=; with RDMA=1 the client of `make rdma`
# make clean      removes build results and the cache of downloads and images

PREFIX ?= /usr
MANDIR ?= $(PREFIX)/share/man
SWIFT ?= swift
export ROOTLINK_CACHE ?= $(HOME)/.cache/rootlink
SWIFTFLAGS = --explicit-target-dependency-import-check error

CLIENT = $(if $(RDMA),out/rootlink-rdma,out/rootlink)

all: $(if $(ARCH),out/$(ARCH)/rootlink,out/rootlink out/rootlinkd out/rootlink-mkinitramfs)
rdma: out/rootlink-rdma

# Installs what Tests/debian-packages.txt names and this machine lacks.
deps:
	@missing=$$(grep -v '^#' Tests/debian-packages.txt | while read -r name; do \
	  dpkg-query -Wf '$${Status}' "$$name" 2>/dev/null | grep -q 'ok installed' || echo "$$name"; done); \
	[ -z "$$missing" ] || { apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; }

UNNEEDED = -R .eh_frame -R .eh_frame_hdr -R .swift_modhash -R .comment

# Both programs of the client, in one build.
out/rootlink: FORCE
	ROOTLINK_EMBEDDED=1 $(SWIFT) build $(SWIFTFLAGS) -c release --scratch-path .build-embedded
	@mkdir -p out
	@# Tables for unwinding, which nothing in it does: a fifteenth of the program.
	for name in rootlink rootlink-attach; do \
	  objcopy $(UNNEEDED) .build-embedded/release/$$name out/$$name || exit 1; done

out/rootlink-rdma: FORCE
	ROOTLINK_EMBEDDED=1 ROOTLINK_RDMA=1 $(SWIFT) build $(SWIFTFLAGS) -c release --scratch-path .build-embedded-rdma --product rootlink
	@mkdir -p out
	objcopy $(UNNEEDED) .build-embedded-rdma/release/rootlink $@

# Swift has its library for machines without a system; Debian's packages have the rest of one.
out/arm64/rootlink: FORCE
	tree=$$(cross/unpack.sh arm64 musl-dev liburing-dev linux-libc-dev libgcc-12-dev) && \
	  ROOTLINK_EMBEDDED=1 ROOTLINK_ARCH=aarch64 ROOTLINK_SYSROOT=$$tree $(SWIFT) build $(SWIFTFLAGS) \
	    -c release --triple aarch64-none-none-elf --scratch-path .build-embedded-arm64
	@mkdir -p $(@D)
	for name in rootlink rootlink-attach; do \
	  llvm-objcopy $(UNNEEDED) .build-embedded-arm64/release/$$name $(@D)/$$name || exit 1; done

SERVERBUILD = $(SWIFT) build $(SWIFTFLAGS) -c release --static-swift-stdlib --scratch-path .build-release
out/rootlinkd: FORCE
	$(SERVERBUILD) --product rootlinkd
	@mkdir -p out
	install -m 755 .build-release/release/rootlinkd $@

# After the other, for the builds share what is compiled.
out/rootlink-mkinitramfs: out/rootlinkd FORCE
	$(SERVERBUILD) --product rootlink-mkinitramfs
	install -m 755 .build-release/release/rootlink-mkinitramfs $@

# The hooks alone: what an image builder needs beside the program.
HOOKDIR = $(DESTDIR)$(PREFIX)/share/initramfs-tools
DRACUTDIR = $(DESTDIR)$(PREFIX)/lib/dracut/modules.d/57rootlink
install-hooks:
	install -D -m 755 initramfs-hooks/hook $(HOOKDIR)/hooks/rootlink
	install -D -m 755 initramfs-hooks/local-top $(HOOKDIR)/scripts/local-top/rootlink
	install -D -m 755 initramfs-hooks/local-bottom $(HOOKDIR)/scripts/local-bottom/rootlink
	install -d $(DRACUTDIR)
	install -m 755 dracut/57rootlink/*.sh $(DRACUTDIR)

install: all $(CLIENT) install-hooks
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/sbin|$(PREFIX)/sbin|' systemd/rootlink-keep@.service \
	  >$(DESTDIR)$(PREFIX)/lib/systemd/system/rootlink-keep@.service
	sed 's|/usr/sbin|$(PREFIX)/sbin|' systemd/rootlinkd.service \
	  >$(DESTDIR)$(PREFIX)/lib/systemd/system/rootlinkd.service
	install -m 644 systemd/rootlinkd.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/rootlinkd.socket
	install -D -m 755 $(CLIENT) $(DESTDIR)$(PREFIX)/sbin/rootlink
	for name in rootlinkd rootlink-mkinitramfs; do \
	  install -D -m 755 out/$$name $(DESTDIR)$(PREFIX)/sbin/$$name || exit 1; done
	@# The hooks take the smaller program where there is one, and that has no RDMA.
	$(if $(RDMA),rm -f,install -D -m 755 out/rootlink-attach) $(DESTDIR)$(PREFIX)/lib/rootlink/rootlink-attach
	for page in docs/man/*.[1-9]; do \
	  install -D -m 644 "$$page" "$(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}" || exit 1; done

lint:
	$(SWIFT) format lint --strict -r Sources Tests Package.swift
	shellcheck $$(git ls-files | xargs grep -lE '^#!/bin/(ba)?sh' --)

tests: FORCE
	$(SWIFT) build --build-tests $(SWIFTFLAGS)

# Builds side by side: most of each runs on one processor.
test: deps lint
	$(MAKE) -j$$(nproc) --output-sync=target all rdma tests
	Tests/run.sh

# Takes about an hour. The table is printed at the end, and stays in out/faults.txt.
test-faults: deps all tests
	rm -f out/faults.txt
	ROOTLINK_LONG=1 Tests/run.sh --no-parallel \
	  --filter 'BootTests.(FaultTests|LifeTests|DebianLifeTests|SwapTests|SilenceTests|KeeperMemoryTests)'
	cat out/faults.txt

# Takes about ten minutes, and seven more the first time, for a kernel.
test-boots: deps all out/arm64/rootlink tests
	Tests/BootTests/lab/build-small-kernel.sh
	ROOTLINK_LONG=1 Tests/run.sh \
	  --filter 'DisklessBootTests|NetworkManagerPeaceTests|FailingBootTests|TinyGuestTests|OneFileTests|OneFileArmTests'

# Takes about three quarters of an hour.
test-rdma: deps all rdma tests
	rm -rf out/logs/rdma
	ROOTLINK_RDMA=all Tests/run.sh --no-parallel --filter 'RDMA|RNBD|RTRS'

demo: deps all
	Tests/BootTests/lab/demo.sh

bench-boot: deps all
	Benchmarks/boot/bench-boot.sh
	Benchmarks/boot/bench-one-file.sh

# Takes about an hour; BENCH=--quick a minute. Options: Benchmarks/server/bench.py --help.
bench: deps out/rootlinkd
	Benchmarks/server/bench.py $(BENCH)

bench-rdma: deps all rdma
	Benchmarks/rdma/bench-rdma.sh

bench-ublk: deps all
	Benchmarks/ublk/bench-ublk.sh

clean:
	rm -rf out .build .build-embedded .build-embedded-rdma .build-embedded-arm64 .build-release "$(ROOTLINK_CACHE)"

.PHONY: all rdma tests demo test-faults test-boots test-rdma bench bench-boot bench-rdma bench-ublk deps install \
  install-hooks lint test clean FORCE
FORCE:

# sudo make demo   two web hosts share a session
# sudo make test   everything
# sudo make scale  a million sessions, two thousand waiting locks, five hundred PHP processes: about ten minutes
# sudo make faults the fault laboratory for longer: SEED=N (or a new one) MINUTES=60
# sudo make bench  sessfs beside the other session handlers (QUICK=1: within two minutes)
GO          ?= go
PREFIX      ?= /usr
DESTDIR     ?=
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := bin/tools/staticcheck
LDFLAGS     := -s -w -X main.version=$(VERSION)
# What the tests and the demo run. gcc is for the race detector.
PACKAGES    := memcached libmemcached-tools php-cli php-fpm nginx-light curl psmisc systemd gcc libc6-dev ca-certificates git tmux
TOOLS       := memcached memccat php nginx curl fuser systemd-analyze gcc git tmux

# sudo leaves these out of PATH on many machines.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

# What the benchmark needs beside them.
BENCH_PACKAGES := php-memcached php-memcache php-redis redis-server strace
OUT            ?= bench-results
SEED           ?= 0
MINUTES        ?= 60



.PHONY: build demo test scale faults bench check deps bench-deps go install clean

go:
	@command -v $(GO) >/dev/null || { echo 'there is no "$(GO)" in PATH; under sudo: sudo env "PATH=$$PATH" make ...' >&2; exit 1; }

build: go
	$(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/sessfs ./cmd/sessfs

demo: go deps build
	./tests/demo/demo.sh bin/sessfs

# apt-get starts servers that it installs; nothing here wants them running.
define apt-install
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.sessfs && chmod +x /usr/sbin/policy-rc.d.sessfs && \
{ [ -e /usr/sbin/policy-rc.d ] || { mv /usr/sbin/policy-rc.d.sessfs /usr/sbin/policy-rc.d; made=1; }; }; \
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) >/dev/null; code=$$?; \
rm -f /usr/sbin/policy-rc.d.sessfs; [ -z "$$made" ] || rm -f /usr/sbin/policy-rc.d; exit $$code
endef

deps:
	@missing=; for t in $(TOOLS); do command -v $$t >/dev/null || missing=1; done; ls /usr/sbin/php-fpm* >/dev/null 2>&1 || missing=1; \
	if [ -n "$$missing" ]; then $(call apt-install,$(PACKAGES)); fi
	@[ -e /dev/fuse ] || modprobe fuse || { echo "there is no /dev/fuse: the tests mount filesystems (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"; exit 1; }

bench-deps: deps
	@missing=; for p in $(BENCH_PACKAGES); do dpkg -s $$p 2>/dev/null | grep -q '^Status: .* installed$$' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then $(call apt-install,$$missing); fi

bench: bench-deps build
	$(GO) build -trimpath -o bin/bench ./tests/bench
	bin/bench -sessfs bin/sessfs -out '$(OUT)' $(if $(QUICK),-quick)

check: $(STATICCHECK)
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted by gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

$(STATICCHECK): | go
	GOBIN=$(CURDIR)/bin/tools $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

test: go deps check
	$(GO) test -race -count=1 -timeout 14m ./...

# The tests of tests/scale in full size; make test runs them small.
scale: deps
	SESSFS_SCALE=full $(GO) test -count=1 -v -timeout 60m ./tests/scale

# One fault after the other, drawn from a seed that is printed.
faults: deps
	$(GO) test -count=1 -v -timeout 0 -run '^TestLab$$' ./tests/faults/lab -seed=$(SEED) -minutes=$(MINUTES)

install: build
	install -D -m 0755 bin/sessfs $(DESTDIR)$(PREFIX)/sbin/sessfs
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/sbin/sessfs $(DESTDIR)/sbin/mount.sessfs
	[ -e $(DESTDIR)/etc/sessfs/config.yaml ] || install -D -m 0644 config.yaml $(DESTDIR)/etc/sessfs/config.yaml
	install -D -m 0644 packaging/sessfs.service $(DESTDIR)/lib/systemd/system/sessfs.service
	install -D -m 0644 packaging/var-lib-php-sessions.mount $(DESTDIR)$(PREFIX)/share/doc/sessfs/var-lib-php-sessions.mount
	install -D -m 0644 packaging/fstab.example $(DESTDIR)$(PREFIX)/share/doc/sessfs/fstab.example
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/sessfs README.md docs/operations.md docs/semantics.md docs/decisions.md
	install -D -m 0644 config.yaml $(DESTDIR)$(PREFIX)/share/doc/sessfs/config.yaml

clean:
	rm -rf bin

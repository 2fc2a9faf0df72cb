# sudo make demo   two web hosts share a session
# sudo make test   everything
# sudo make secure the tests of PHP, of the filesystem and of locks against servers with TLS and a login
# sudo make scale  a million sessions, five million made-up cookies, two thousand waiting locks, five hundred PHP processes: about forty minutes
# sudo make faults the fault laboratory for longer: SEED=N (or a new one) MINUTES=60
# make fuzz        every fuzz target for ten minutes, one after the other: FUZZTIME=30s, FUZZJOBS=1 (processes)
# make vulncheck   known vulnerabilities in what the binary calls, Go's own library included
# sudo make bench  sessfs beside the other session handlers (QUICK=1: within two minutes)
# make package     a .deb and a .rpm in bin/ (GOARCH=arm64: for another kind of processor)
GO          ?= go
PREFIX      ?= /usr
DESTDIR     ?=
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := bin/tools/staticcheck
NFPM        := bin/tools/nfpm
# Where all that is built goes.
B           ?= bin
# Whose paths are installed: debian or redhat.
FLAVOR      ?= $(if $(wildcard /etc/redhat-release),redhat,debian)
# For builds that can be repeated.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
LDFLAGS     := -s -w -X main.version=$(VERSION)
# What the tests and the demo run. gcc is for the race detector.
PACKAGES    := memcached libmemcached-tools sasl2-bin php-cli php-fpm nginx-light curl psmisc procps systemd gcc libc6-dev ca-certificates git man-db mandoc rpm fish zsh tmux prometheus chromium
TOOLS       := memcached memccat saslpasswd2 php nginx curl fuser pgrep systemd-analyze gcc git man mandoc rpm fish zsh tmux prometheus promtool chromium

# sudo leaves these out of PATH on many machines.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

# What the benchmark needs beside them.
BENCH_PACKAGES := php-memcached php-memcache php-redis redis-server strace
OUT            ?= bench-results
SEED           ?= 0
MINUTES        ?= 60
FUZZTIME       ?= 10m
FUZZJOBS       ?= $(shell nproc)



.PHONY: build docs demo test secure scale faults fuzz vulncheck bench check deps bench-deps go install install-files package clean

go:
	@command -v $(GO) >/dev/null || { echo 'there is no "$(GO)" in PATH; under sudo: sudo env "PATH=$$PATH" make ...' >&2; exit 1; }

build: go
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(B)/sessfs ./cmd/sessfs

# Manual pages and completions, made from the commands and the sample configuration; and whose work is in the binary.
docs: go
	rm -rf $(B)/docs
	env -u GOARCH CGO_ENABLED=0 $(GO) run -trimpath -buildvcs=false -tags docs -ldflags '$(LDFLAGS)' ./cmd/sessfs docs config.yaml $(B)/docs
	cp packaging/man/*.8 $(B)/docs/
	GO='$(GO)' packaging/copyright.sh >$(B)/docs/copyright

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
	$(GO) vet -tags docs ./cmd/sessfs
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags docs ./cmd/sessfs

$(STATICCHECK): | go
	GOBIN=$(CURDIR)/bin/tools $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

$(NFPM): | go
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

# go vet is a part of check.
test: go deps check $(NFPM)
	$(GO) test -race -vet=off -count=1 -timeout 14m ./...
	SESSFS_TEST_SECURE=1 $(GO) test -race -vet=off -count=1 -timeout 3m -run 'TestWrittenHereReadThere|TestTwoHostsShareASession|TestSizes' ./tests/php

# All servers want TLS, a certificate of their clients, and a login.
secure: deps
	SESSFS_TEST_SECURE=1 $(GO) test -race -count=1 -timeout 30m ./tests/php ./tests/posix ./tests/locks

# The tests of tests/scale and tests/move in full size; make test runs them small.
scale: deps
	SESSFS_SCALE=full $(GO) test -count=1 -v -timeout 120m -p 1 ./tests/scale ./tests/move
	SESSFS_HANDOVER=full $(GO) test -race -count=1 -v -run TestDaemonsUnderLoad ./tests/handover

# One fault after the other, drawn from a seed that is printed.
faults: deps
	$(GO) test -count=1 -v -timeout 0 -run '^TestLab$$' ./tests/faults/lab -seed=$(SEED) -minutes=$(MINUTES)

# What reads what others have written. make test runs the seeds alone. A finding ends it, and stands in testdata/fuzz. That its
# time was over while Go still made an input smaller is none, though Go says FAIL.
fuzz: go
	@mkdir -p bin; set -e; for package in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$package/*_test.go); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s -parallel $(FUZZJOBS) $$package 2>&1 | tee bin/fuzz.log; \
			grep -qE '^ok|^    context deadline exceeded' bin/fuzz.log; \
		done; \
	done

# The database comes through the module proxy, as the tools do: vuln.go.dev cannot be reached from everywhere.
VULNDB := golang.org/x/vulndb
VULN   := golang.org/x/vuln/cmd/govulncheck
vulncheck: go
	GOBIN=$(CURDIR)/bin/tools $(GO) install $(VULN)@latest
	GOBIN=$(CURDIR)/bin/tools $(GO) install $(VULNDB)/cmd/indexdb@latest
	rm -rf bin/vulndb
	bin/tools/indexdb -vulns "$$($(GO) mod download -json $(VULNDB)@latest | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/data/osv" -out bin/vulndb
	bin/tools/govulncheck -db=file://$(CURDIR)/bin/vulndb ./cmd/sessfs

install: build docs install-files

# What is installed, here and by the packages. A configuration that is there stays.
DOC     = $(DESTDIR)$(PREFIX)/share/doc/sessfs
MAN     = $(DESTDIR)$(PREFIX)/share/man
ZSH     = $(if $(filter redhat,$(FLAVOR)),site-functions,vendor-completions)
UNIT    = $(if $(filter redhat,$(FLAVOR)),var-lib-php-session.mount,var-lib-php-sessions.mount)
# Where PHP keeps its sessions, and whose directory that is.
REDHAT  = sed -e 's|/var/lib/php/sessions|/var/lib/php/session|' -e 's|^  group: root|  group: apache|' -e 's|^  mode: "1733"|  mode: "0770"|'
ADAPT   = $(if $(filter redhat,$(FLAVOR)),$(REDHAT),cat)

install-files:
	install -D -m 0755 $(B)/sessfs $(DESTDIR)$(PREFIX)/sbin/sessfs
	install -d $(DESTDIR)/usr/sbin $(DESTDIR)/etc/sessfs $(DOC) $(MAN)/man5 $(MAN)/man8
	ln -srf $(DESTDIR)$(PREFIX)/sbin/sessfs $(DESTDIR)/usr/sbin/mount.sessfs
	[ -e $(DESTDIR)/etc/sessfs/config.yaml ] || { $(ADAPT) config.yaml >$(DESTDIR)/etc/sessfs/config.yaml && chmod 0644 $(DESTDIR)/etc/sessfs/config.yaml; }
	install -d $(DESTDIR)/usr/lib/systemd/system
	sed 's|/usr/sbin/|$(PREFIX)/sbin/|' packaging/sessfs.service >$(DESTDIR)/usr/lib/systemd/system/sessfs.service
	for page in $(B)/docs/*.[58]; do gzip -9n <$$page >$(MAN)/man$${page##*.}/$${page##*/}.gz || exit 1; done
	install -D -m 0644 $(B)/docs/sessfs.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/sessfs
	install -D -m 0644 $(B)/docs/_sessfs $(DESTDIR)$(PREFIX)/share/zsh/$(ZSH)/_sessfs
	install -D -m 0644 $(B)/docs/sessfs.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sessfs.fish
	install -m 0644 -t $(DOC) README.md docs/*.md packaging/alerts.yaml packaging/grafana-dashboard.json $(B)/docs/copyright
	$(ADAPT) config.yaml >$(DOC)/config.yaml
	$(ADAPT) packaging/fstab.example >$(DOC)/fstab.example
	$(ADAPT) packaging/var-lib-php-sessions.mount >$(DOC)/$(UNIT)
	chmod 0644 $(DOC)/* $(MAN)/man[58]/sessfs* $(MAN)/man8/mount.sessfs* $(DESTDIR)/usr/lib/systemd/system/sessfs.service

# 1.2.3 of the tag v1.2.3, 1.2.3+4.gabcdef four commits later; without a tag the time of the commit, so that later is more.
PACKAGE_VERSION ?= $(shell echo '$(VERSION)' | sed -nE '/^v?[0-9]+\.[0-9]/{s/^v//; s/-(alpha|beta|rc)/~\1/; s/-/+/; s/-/./g; p; q}; \
	s/-/./g; s/^/0~git'"$$(date -u -d @$(SOURCE_DATE_EPOCH) +%Y%m%d%H%M%S)"'./p')

package: build docs $(NFPM)
	rm -rf $(B)/package $(B)/sessfs_*.deb $(B)/sessfs-*.rpm
	$(MAKE) install-files FLAVOR=debian PREFIX=/usr DESTDIR=$(B)/package/debian
	$(MAKE) install-files FLAVOR=redhat PREFIX=/usr DESTDIR=$(B)/package/redhat
	export PACKAGE_VERSION='$(PACKAGE_VERSION)' ARCH=$$($(GO) env GOARCH); \
	ROOT=$(B)/package/debian $(NFPM) package --config packaging/nfpm.yaml --packager deb --target $(B) && \
	ROOT=$(B)/package/redhat $(NFPM) package --config packaging/nfpm.yaml --packager rpm --target $(B)

clean:
	rm -rf bin

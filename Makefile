# sessfs: `make build`, `sudo make test`.
GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build test check clean

build:
	$(GO) build -o bin/ ./...

# check: format, vet and staticcheck are clean.
check:
	@fmt=$$(gofmt -l .); test -z "$$fmt" || { echo "not formatted: $$fmt"; exit 1; }
	$(GO) vet ./...
	GOBIN=$(CURDIR)/bin/tools $(GO) install $(STATICCHECK)
	bin/tools/staticcheck ./...

test: check
	$(GO) test -race -count=1 -timeout 14m ./...

clean:
	rm -rf bin

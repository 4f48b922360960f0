# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

GO ?= go
# Tools run from the module that pins them: nothing is installed.
LINT := $(GO) tool -modfile=tools/lint/go.mod
FUZZTIME ?= 30s
# The soak prints the seed of its faults; set it to make the same faults again.
SOAK_DURATION ?= 10m
SOAK_SEED ?= 0
# Of each kind in each of three runs; flags such as -tls and "-storage consul" make tables of their own.
BENCH_FAILOVERS ?= 7
BENCH_FLAGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build Caddy with the plugin: ./caddy
	$(GO) build -trimpath -o caddy ./cmd/caddy

.PHONY: demo
demo: build dist/demo ## Show redirects following a failover, on stand-ins of Consul and Vault
	@exec dist/demo -caddy ./caddy

.PHONY: demo-real
demo-real: build dist/demo tools ## The same on real Consul and Vault
	@exec dist/demo -caddy ./caddy -real

.PHONY: dist/demo
dist/demo:
	$(GO) build -o $@ ./examples/demo

.PHONY: test
test: lint tools ## All that CI runs: lint, and every test with the race detector
	$(GO) test -race -timeout 30m ./...

.PHONY: test-quick
test-quick: ## What needs no real Consul or Vault, with the race detector: less than two minutes, no lint
	$(GO) test -race -short -timeout 10m ./...

.PHONY: lint
lint: ## Check formatting, vet, staticcheck, tidiness of the modules
	@unformatted=$$($(LINT) gofumpt -l .); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(LINT) staticcheck ./...
	$(GO) mod tidy -diff

# Apart from lint, since all of Caddy is compiled for each.
.PHONY: vet-others
vet-others: ## Check that all of it compiles for Windows and macOS, too
	GOOS=windows $(GO) vet ./...
	GOOS=darwin $(GO) vet ./...

.PHONY: fmt
fmt: ## Format the code
	$(LINT) gofumpt -w .

.PHONY: bench
bench: ## Benchmarks
	$(GO) test -run '^$$' -bench . -benchmem .

.PHONY: bench-failover
bench-failover: tools ## Failovers of real servers beside HAProxy, nginx, Consul DNS, into docs/benchmarks.md
	$(GO) build -o dist/benchfailover ./internal/testing/benchfailover
	@exec dist/benchfailover -n $(BENCH_FAILOVERS) $(BENCH_FLAGS) -out docs/benchmarks.md -log dist/benchfailover.jsonl

.PHONY: bench-probe
bench-probe: tools ## What the probes of many redirectors cost Vault, and how soon all follow, into docs/benchmarks.md
	$(GO) build -o dist/benchprobe ./internal/testing/benchprobe
	@exec dist/benchprobe -out docs/benchmarks.md

# Clients that are not installed are built from Go modules or downloaded from npm; Python's are Debian's packages.
.PHONY: clients
clients: tools ## Real clients of Vault through redirects, before and after a failover, into docs/clients.md
	$(GO) build -o dist/clients ./internal/testing/clients
	@exec dist/clients -out docs/clients.md

.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZTIME (default 30s)
	@for f in $$($(GO) test -list '^Fuzz' . | grep ^Fuzz); do \
		echo "== $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) . || exit 1; \
	done

.PHONY: soak
soak: build tools ## Random faults on a real cluster under load, for SOAK_DURATION (default 10m), by SOAK_SEED
	$(GO) build -o dist/soak ./internal/testing/soak
	@exec dist/soak -caddy ./caddy -duration $(SOAK_DURATION) -seed $(SOAK_SEED)

# Programs that tests and the demo use are built once, into the user's cache folder.
.PHONY: tools
tools: ## Build the Consul and Vault that tests use, unless they are on PATH or built already
	$(GO) run ./internal/testing/cluster/programs

.PHONY: clean
clean: ## Remove what the build made here
	rm -rf caddy dist
	$(GO) clean -testcache

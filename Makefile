# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

GO ?= go
# Tools run from the module that pins them: nothing is installed.
LINT := $(GO) tool -modfile=tools/lint/go.mod
# As Caddy's own releases are built: without the databases in which its ACME server could keep its data.
TAGS := nobadger,nomysql,nopgx
FUZZTIME ?= 30s
# The soak prints the seed of its faults; set it to make the same faults again.
SOAK_DURATION ?= 10m
SOAK_SEED ?= 0
# Of each kind in each of three runs; flags such as -tls, -busy and "-storage consul" make tables of their own, "-runs 1" is shorter.
BENCH_FAILOVERS ?= 7
BENCH_FLAGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build Caddy with the plugin: ./caddy
	@GO=$(GO) TAGS=$(TAGS) tools/build/progress.sh caddy ./cmd/caddy

.PHONY: demo
demo: dist/demo ## Show redirects following a failover, on stand-ins of Consul and Vault
	@exec dist/demo -caddy dist/caddy

.PHONY: check-demo
check-demo: ## Show what check prints for five common mistakes: docs/check.md
	@$(GO) test -count=1 -run '^TestCheckPage$$' -v .

.PHONY: demo-real
demo-real: dist/demo tools ## The same on real Consul and Vault
	@exec dist/demo -caddy dist/caddy -real

.PHONY: demo-twelve-factor
demo-twelve-factor: dist/demo tools ## A service that leases its database's credentials through failovers; needs MariaDB
	$(GO) build -o dist/twelve-factor ./examples/twelve-factor
	cd examples/twelve-factor/todo && $(GO) build -o ../../../dist/todo .
	@exec dist/twelve-factor -caddy dist/caddy -todo dist/todo

# Both at once, and with the flags of "build": so nothing is compiled twice.
.PHONY: dist/demo
dist/demo:
	@mkdir -p dist
	@GO=$(GO) TAGS=$(TAGS) tools/build/progress.sh dist/ ./cmd/caddy ./examples/demo

.PHONY: test
test: lint formats tools ## All that CI runs: lint, and all tests with the race detector, of bench/ the short ones
	$(GO) test -race -timeout 30m ./internal/testing/integration ./... # the longest begins first
	cd bench && $(GO) test -race -short -timeout 10m ./...

.PHONY: test-quick
test-quick: ## What needs no real Consul or Vault, with the race detector: less than two minutes, no lint
	$(GO) test -race -short -p $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) -timeout 10m ./... # one more at once than there are cores: they mostly wait
	cd bench && $(GO) test -race -short -timeout 10m ./...

.PHONY: test-bench
test-bench: tools ## The tests of bench/ in full: each program measures something small on real servers
	cd bench && $(GO) test -race -timeout 30m ./...

.PHONY: lint
lint: ## Check formatting, vet, staticcheck, tidiness of the modules
	@unformatted=$$($(LINT) gofumpt -l .); if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(LINT) staticcheck ./...
	$(GO) mod tidy -diff
	cd bench && $(GO) vet ./... && $(GO) tool -modfile=../tools/lint/go.mod staticcheck ./... && $(GO) mod tidy -diff
	cd examples/twelve-factor/todo && $(GO) vet ./... && $(GO) mod tidy -diff

.PHONY: formats
formats: ## Read Dockerfile, Compose, Nomad and Kubernetes examples with the libraries of the programs that read them
	cd tools/formats && $(GO) test -count=1 ./...

# Apart from lint, since all of Caddy is compiled for each.
.PHONY: vet-others
vet-others: ## Check that all of it compiles for Windows and macOS, too
	GOOS=windows $(GO) vet ./...
	cd bench && GOOS=windows $(GO) vet ./...
	GOOS=windows $(GO) build -o /dev/null ./cmd/caddy
	GOOS=darwin $(GO) vet ./...
	cd bench && GOOS=darwin $(GO) vet ./...
	GOOS=darwin $(GO) build -o /dev/null ./cmd/caddy

.PHONY: fmt
fmt: ## Format the code
	$(LINT) gofumpt -w .

# What a release has to pass; TESTS=test-quick leaves out what needs a real Consul and Vault. See CONTRIBUTING.md.
TESTS ?= test test-bench

.PHONY: release-check
release-check: clean-tree $(TESTS) formats vet-others licences sbom reproducible vuln ## All that a release has to pass
	@echo "Ready: dist/licences.txt and dist/sbom.txt belong to dist/caddy."

.PHONY: clean-tree
clean-tree: ## Fail if something is not committed
	@changes=$$(git status --porcelain); if [ -n "$$changes" ]; then echo "not committed:"; echo "$$changes"; exit 1; fi

.PHONY: licences
licences: dist/demo ## List the licences of what is linked into Caddy, with their texts: dist/licences.txt
	cd tools/release && $(GO) test -count=1 ./... && $(GO) run ./licences ../../dist/caddy ../.. > ../../dist/licences.txt
	@sed '/^$$/q' dist/licences.txt

.PHONY: sbom
sbom: dist/demo ## List the modules that Caddy is made of, with their checksums: dist/sbom.txt
	$(GO) version -m dist/caddy > dist/sbom.txt
	@grep -c '^	dep' dist/sbom.txt | sed 's/$$/ modules/'

.PHONY: reproducible
reproducible: ## Build the commit that is checked out twice, in different folders, and compare (COLD=1: without any cache)
	TAGS=$(TAGS) GO=$(GO) COLD=$(COLD) tools/release/reproducible.sh

# VULNDB=module is for where vuln.go.dev cannot be reached: the Go module that its database is made of.
.PHONY: vuln
vuln: dist/demo ## Look for known vulnerabilities of what is linked, in the database at vuln.go.dev (or VULNDB: a URL, or "module")
	cd tools/release && $(GO) build -o ../../dist/govulncheck golang.org/x/vuln/cmd/govulncheck
	@db=$(or $(VULNDB),https://vuln.go.dev); if [ "$$db" = module ]; then \
		db=file://$$($(GO) mod download -json golang.org/x/vulndb@latest | sed -n 's/^.*"Dir": "\(.*\)",$$/\1/p')/data/osv; fi; \
	echo "dist/govulncheck -db $$db -mode binary dist/caddy"; dist/govulncheck -db "$$db" -mode binary dist/caddy

.PHONY: bench
bench: ## Benchmarks
	$(GO) test -run '^$$' -bench . -benchmem .

.PHONY: bench-failover
bench-failover: tools ## Failovers of real servers beside reverse_proxy, HAProxy, nginx, Consul DNS, into docs/benchmarks.md
	cd bench && $(GO) build -o ../dist/benchfailover ./failover
	@exec dist/benchfailover -n $(BENCH_FAILOVERS) $(BENCH_FLAGS) -out docs/benchmarks.md -log dist/benchfailover.jsonl

.PHONY: bench-probe
bench-probe: tools ## What the probes of many redirectors cost Vault, and how soon all follow, into docs/benchmarks.md
	cd bench && $(GO) build -o ../dist/benchprobe ./probe
	@exec dist/benchprobe -out docs/benchmarks.md

.PHONY: bench-front
bench-front: ## Redirects a second, CPU, latency, memory beside nginx and HAProxy, into docs/benchmarks.md (Linux, 2 cores)
	cd bench && $(GO) build -o ../dist/benchfront ./front
	@exec dist/benchfront $(BENCH_FLAGS) -out docs/benchmarks.md

.PHONY: bench-latency
bench-latency: ## What a redirect or a proxy costs a client, beside reverse_proxy, HAProxy, nginx, into docs/benchmarks.md (Linux, 2 cores)
	cd bench && $(GO) build -o ../dist/benchlatency ./latency
	@exec dist/benchlatency $(BENCH_FLAGS) -out docs/benchmarks.md

# Clients that are not installed are built from Go modules or downloaded from npm; Python's are Debian's packages.
.PHONY: clients
clients: tools ## Real clients of Vault through redirects, before and after a failover, into docs/clients.md
	cd bench && $(GO) build -o ../dist/clients ./clients
	@exec dist/clients -out docs/clients.md

.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZTIME (default 30s)
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
			echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
		done; \
	done

.PHONY: soak
soak: build tools ## Random faults on a real cluster under load, for SOAK_DURATION (default 10m), by SOAK_SEED
	cd bench && $(GO) build -o ../dist/soak ./soak
	@exec dist/soak -caddy ./caddy -duration $(SOAK_DURATION) -seed $(SOAK_SEED)

# Programs that tests and the demo use are built once, into the user's cache folder.
.PHONY: tools
tools: ## Build the Consul and Vault that tests use, unless they are on PATH or built already; with npm, dynalite too
	$(GO) run ./internal/testing/cluster/programs
	@command -v npm >/dev/null && $(MAKE) --no-print-directory tools-dynalite || echo "dynalite: left out, and so is the test on DynamoDB"

.PHONY: tools-dynalite
tools-dynalite: ## Install dynalite, which plays DynamoDB in a test, into the cache folder; needs Node.js and npm
	$(GO) run ./internal/testing/cluster/programs dynalite

.PHONY: clean
clean: ## Remove what the build made here
	rm -rf caddy dist
	$(GO) clean -testcache

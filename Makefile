# Everflame's chores. `make run` is all that a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

TRIPLE  := x86_64-unknown-linux-gnu
BINARY  := target/$(TRIPLE)/release/everflame
PROGRAM := target/release/everflame
LISTEN  ?= 127.0.0.1:4040
DATA    ?= everflame-data

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)
# The newest clang here compiles the kernel programs, unless CLANG says which.
export CLANG ?= $(firstword $(wildcard $(foreach v,21 20 19 18 17 16 15,/usr/bin/clang-$(v))) clang)
# Looked for when it is needed: the first chore that does installs it.
CLANG_FORMAT ?= $$(ls /usr/bin/clang-format-[0-9]* 2>/dev/null | sort -V | tail -n 1 | grep . || echo clang-format)

.PHONY: help build run test test-quick test-kernels test-kubernetes build-arm64 image deb lint format fuzz record-stacks bench soak screenshot clean setup

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

setup: ## install what building needs (make does it by itself)
	@scripts/setup.sh build

# The page is built once and then only when one of its sources changed.
UI_SOURCES := $(shell find ui -name node_modules -prune -o -name dist -prune -o -type f -print 2>/dev/null)

ui/node_modules/.complete: ui/package.json ui/package-lock.json
	@scripts/setup.sh build
	cd ui && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

ui/dist/index.html: ui/node_modules/.complete $(UI_SOURCES)
	cd ui && npm run --silent build
	@touch $@

build: ui/dist/index.html ## the finished program at target/release/everflame
	@scripts/setup.sh build
	cargo build --release --package everflame --bins
	@mkdir -p target/release && ln -f $(BINARY) $(PROGRAM)

ARM64 := aarch64-unknown-linux-gnu
build-arm64: ui/dist/index.html ## the same for 64-bit ARM: target/aarch64-unknown-linux-gnu/release/everflame
	@scripts/setup.sh arm64
	cargo build --release --target $(ARM64) --package everflame --bins

# The programs that are there to be packed: this machine's, and arm64's where it was built.
ARM64_PROGRAM := target/$(ARM64)/release/everflame
PROGRAMS = amd64=$(BINARY) $(if $(wildcard $(ARM64_PROGRAM)),arm64=$(ARM64_PROGRAM))

image: build ## an OCI image of it at target/image (IMAGE=registry/name:tag), with arm64 after make build-arm64
	@scripts/setup.sh image
	@scripts/image.sh $(if $(IMAGE),--name $(IMAGE)) $(PROGRAMS)

deb: build ## a Debian package of it at target/deb, with units for systemd; one for arm64 after make build-arm64
	@scripts/setup.sh image
	@scripts/deb.sh $(PROGRAMS)

run: build ## build, then sample this machine and show it at http://127.0.0.1:4040
	@scripts/setup.sh run
	@if [ "$$(id -u)" != 0 ]; then \
	  echo "sampling every process needs root; asking sudo to start: $(PROGRAM) up --listen $(LISTEN) --data $(DATA)"; \
	  exec sudo $(PROGRAM) up --listen $(LISTEN) --data $(DATA); \
	fi; \
	echo "open http://$(LISTEN) once the line 'everflame is ready' is printed; Ctrl-C ends it"; \
	exec $(PROGRAM) up --listen $(LISTEN) --data $(DATA)

tests/browser/node_modules/.complete: tests/browser/package.json tests/browser/package-lock.json
	cd tests/browser && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

test: build tests/browser/node_modules/.complete ## every test: units, then end to end on the real thing (root)
	@scripts/setup.sh test
	@scripts/test.sh

test-quick: build ## the tests that need neither root nor other programs
	@scripts/test.sh quick

test-kernels: ## the agent in virtual machines with every kernel of the matrix (docs/kernels.md)
	@scripts/setup.sh test
	EVERFLAME_KERNELS=all cargo test --release --package everflame-kernels

# EVERFLAME_OUTAGES=all adds what takes minutes: an API server that is away for long.
test-kubernetes: build ## deploy/ on a real control plane and kubelet, built once into the user's cache (root)
	@scripts/setup.sh test
	@scripts/kubernetes.sh >/dev/null
	@scripts/kubernetes.sh tools >/dev/null || true
	EVERFLAME_OUTAGES=all cargo test --release --package everflame-kubernetes
	EVERFLAME_OUTAGES=all cargo test --release --package everflame-agent --test pods -- --include-ignored --nocapture away_for_long silent

lint: ui/dist/index.html ## formatting, clippy, tidy, the page's types
	@scripts/setup.sh lint
	cargo fmt --all --check
	$(CLANG_FORMAT) --dry-run --Werror $$(find bpf tests/targets -name '*.[ch]' -o -name '*.cc')
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings
	shellcheck --external-sources --source-path=SCRIPTDIR --severity=warning $$(git ls-files '*.sh' .ci/run)
	cargo xtask tidy
	cd ui && npm run --silent lint
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check licenses bans sources; \
	  else echo "lint: cargo-deny is not installed: licences are not checked (cargo install cargo-deny)"; fi

format: ## put Rust and C into the house's form
	cargo fmt --all
	$(CLANG_FORMAT) -i $$(find bpf tests/targets -name '*.[ch]' -o -name '*.cc')

screenshot: build tests/browser/node_modules/.complete ## README's picture, from the browser test (root)
	EVERFLAME_SCREENSHOT=$(CURDIR)/docs/screenshot.png cargo test --release --package everflame-tests --test end_to_end -- browser

FUZZ_SECONDS ?= 300
fuzz: ## try to break the kernel's walk for FUZZ_SECONDS=300; what does is kept in tests/corpus/step
	@scripts/setup.sh test
	EVERFLAME_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --release --package everflame-tests --test end_to_end -- examiner

record-stacks: build ## record stacks of the test programs anew into tests/corpus/stacks (root)
	@scripts/setup.sh test
	tests/targets/build.sh tests/.cache/targets
	EVERFLAME_RECORD_STACKS=1 cargo test --release --package everflame-agent --lib -- --nocapture opinion::corpus::record

bench: build ## measure, write docs/bench/*.json, generate docs/benchmarks.md (root, about 15 minutes)
	@scripts/setup.sh test
	cargo xtask bench

soak: build ## an hour of storms; fails where anything grows, sticks or is lost (root; SOAK_MINUTES=60)
	@scripts/setup.sh test
	cargo xtask soak --minutes $(or $(SOAK_MINUTES),60)

clean: ## remove what was built, not what was recorded
	cargo clean
	rm -rf ui/dist ui/node_modules tests/browser/node_modules tests/.cache .tools

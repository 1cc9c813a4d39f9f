# What one does with this tree. `make help` lists it; everything else here follows from the files each target names.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules
.PHONY: help setup protos clients run demo test conformance chaos model mutants bounded soak bench bench-peers lint format requirements grpcurl clean

PYTHON ?= python3
GRPCURL_VERSION := v1.9.4
BIN := .venv/bin
PACKAGES := clients/python server workers

# The clients in other languages: the program without which each cannot be built, and the last thing that its build makes.
LANGUAGES := node go java rust
TOOL_node := npm
TOOL_go := go
TOOL_java := mvn
TOOL_rust := cargo
BUILT_node := clients/node/build/conformance/driver.js
BUILT_go := clients/go/bin/conformance
BUILT_java := clients/java/target/test-classes/conformance/Driver.class
BUILT_rust := clients/rust/target/debug/examples/conformance
# A build depends on all files of its client, but not on what it makes itself, nor on the example that is a project of its own.
NO_SOURCES := node_modules dist build generated bin v1 target fastify
SOURCES = $(shell find clients/$(1) protos \( -false $(NO_SOURCES:%=-o -name %) \) -not -path 'protos/*' -prune -o -type f -not -name Cargo.lock -print)

# Each stamp says that its work was done after the files it depends on changed last.
INSTALLED := .venv/.installed
STUBS := clients/python/jobwire/v1/.generated

export PATH := $(CURDIR)/$(BIN):$(CURDIR)/.tools/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create .venv with the pinned packages, hashes checked, and with ours editable

protos: $(STUBS)  ## generate the Python stubs from protos/

clients: $(LANGUAGES:%=client-%)  ## build the clients whose toolchain is here; client-go builds one

run: $(STUBS)  ## serve until Ctrl-C; DATABASE_URL names the database, else a PostgreSQL is embedded
	@exec jobwire serve $(if $(DATABASE_URL)$(JOBWIRE_DATABASE_URL),,--embedded)

demo: $(STUBS)  ## parse a real workbook: server, worker and PostgreSQL are started and stopped for it
	@exec jobwire demo

test: $(STUBS) clients  ## run the tests, four files at a time; ARGS="-k resume" narrows them
	@exec pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

conformance: $(STUBS) clients  ## try every client by the same scenarios; ARGS="go --json" narrows, ARGS=--write writes docs/conformance.md
	@exec python -m tests.conformance $(ARGS)

chaos: $(STUBS)  ## draw faults and load from a seed, and check every promise; ARGS="--help" says what can be set
	@exec python -m tests.chaos $(ARGS)

model: $(STUBS)  ## drive two replicas' store and a small model side by side, for STEPS=200000 random steps
	@exec python -m tests.model --steps $(or $(STEPS),200000) $(ARGS)

mutants: $(STUBS)  ## break each promise of docs/promises.md and see its tests fail; ARGS="--only NAME" takes one
	@exec python -m tests.mutants $(ARGS)

lint: $(STUBS)  ## style, types, import rules, contract, Dockerfile
	@scripts/lint

format: $(STUBS)  ## let ruff and buf rewrite what they can
	@ruff check --fix --quiet . || true
	@ruff format .
	@buf format --write protos

requirements:  ## pin requirements/*.txt anew; ARGS=--upgrade takes the newest versions
	@PYTHON=$(PYTHON) scripts/compile-requirements $(ARGS)

grpcurl: .tools/bin/grpcurl-$(GRPCURL_VERSION)  ## build grpcurl into .tools/bin (needs Go)

bounded: $(STUBS)  ## measure memory, idle statements and overload; ARGS="--seconds 20 --json" (see docs/bounded.md)
	@exec python -m bench.bounded $(ARGS)

soak: $(STUBS)  ## workers come, go and die for MINUTES=20: nothing may grow
	@exec python -m bench.soak --minutes $(or $(MINUTES),20) $(ARGS)

bench: $(STUBS)  ## measure speed beside plain SQL and bare gRPC, in minutes; ARGS="--help" says what can be set (see docs/benchmarks.md)
	@exec python -m bench.speed $(ARGS)

bench-peers: $(STUBS)  ## the same beside other job queues, which are fetched into .tools/peers (some need Node.js or Go)
	@exec python -m bench.speed --peers $(ARGS)

clean:  ## remove what was generated or installed here; .data, where databases are, stays
	@rm -rf .venv .tools build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@git clean -ffdXq --exclude='!.env' clients
	@find $(PACKAGES) tests scripts -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Jobwire needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
	    { rm -rf .venv; echo "$(PYTHON) cannot create environments: install its venv module (Debian, Ubuntu: python3-venv)." >&2; exit 1; }

$(INSTALLED): requirements/dev.txt $(PACKAGES:%=%/pyproject.toml) | $(BIN)/python
	@$(BIN)/python scripts/install.py $(BIN)/python requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps $(PACKAGES:%=--editable %)
	@$(BIN)/python -m pip check --quiet || { echo "requirements/ lags behind a pyproject.toml: run make requirements" >&2; exit 1; }
	@touch $@

$(STUBS): $(shell find protos -name '*.proto') scripts/generate_stubs.py $(INSTALLED)
	@$(BIN)/python scripts/generate_stubs.py
	@touch $@

.PHONY: $(LANGUAGES:%=client-%)
$(LANGUAGES:%=client-%): client-%:
	@if command -v $(TOOL_$*) >/dev/null; then $(MAKE) --silent $(BUILT_$*); else echo "Left out: clients/$*, since there is no $(TOOL_$*) on PATH"; fi

clients/node/node_modules/.package-lock.json: clients/node/package-lock.json
	@cd clients/node && npm ci --silent

$(BUILT_node): $(call SOURCES,node) clients/node/node_modules/.package-lock.json
	@echo "Building clients/node"
	@cd clients/node && npm run --silent build
	@touch $@

$(BUILT_go): $(call SOURCES,go) $(INSTALLED)
	@echo "Building clients/go"
	@cd clients/go && buf generate ../../protos && go build -o bin/ ./...
	@touch $@

$(BUILT_java): $(call SOURCES,java)
	@echo "Building clients/java"
	@cd clients/java && mvn --batch-mode --quiet -Dstyle.color=never -DskipTests package
	@touch $@

$(BUILT_rust): $(call SOURCES,rust)
	@echo "Building clients/rust"
	@cd clients/rust && cargo build --quiet --examples
	@touch $@

.tools/bin/grpcurl-$(GRPCURL_VERSION):
	@echo "Building grpcurl $(GRPCURL_VERSION)"
	@GOBIN=$(CURDIR)/.tools/bin GOFLAGS= go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)
	@touch $@

# Everything that CI does, by the same commands at home. `make` alone lists them.

PYTHON ?= python3
BIN    := .venv/bin
ARGS   ?=

# Tests wait for servers more than they compute: three processes keep two cores busy. They take files in order: sorted
# by the number of tests, the longest, which have one or two, would come last and alone.
PROCESSES ?= 3

# What the tests start for real; scripts/debian-packages installs what is missing.
DEBIAN := openssh-server rabbitmq-server postgresql redis-server redis-tools curl openssl sudo chromium iproute2 \
          util-linux fonts-dejavu-core fonts-noto-color-emoji age zstd

PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
ifndef TOGETHER
.NOTPARALLEL:
endif
.PHONY: help install dev try test check lint types unit chaos bench bench-backup pictures runbooks accuracy lock system-packages

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 26

install: .venv/.installed ## Create .venv with opsbot and all that `opsbot try` needs
dev: .venv/.developing ## ... and with the tools of the tests

try: install ## Play with opsbot on this machine alone (ARGS="--tour" without a browser)
	@$(BIN)/opsbot try $(ARGS)

# mypy needs one core for a minute, and the tests leave one idle for several: beside them it costs next to nothing.
test: system-packages lint ## All that CI does: system packages, lint, types, tests
	@$(MAKE) --no-print-directory --jobs=2 TOGETHER=yes types unit

check: lint types ## Lint, types, layers, Dockerfile

lint: dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/lint-imports --no-cache
	@if test -x $(BIN)/hadolint; then echo $(BIN)/hadolint Dockerfile && $(BIN)/hadolint Dockerfile; \
	else echo "hadolint has no build for this machine: the Dockerfile was not linted."; fi

types: dev
	nice $(BIN)/mypy

unit: dev ## The tests alone (ARGS="tests/core -k parse")
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: dev ## Kill workers and databases at every step and count what happened (ARGS for its options)
	@$(BIN)/python -m tests.chaos $(ARGS)

bench: dev ## Measure speed (ARGS for its options)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-backup: dev ## Measure backups beside OpenSSH with age, SFTP and tar -cz (ARGS="--scale 0.1" for a quick look)
	@nice $(BIN)/python -m tests.bench.backup $(ARGS)

pictures: dev ## Take the screenshots of README and docs anew, in a real browser
	OPSBOT_PICTURES=docs/images $(BIN)/pytest -q tests/browser

accuracy: dev ## Break the simulated installation in every way and count what is named rightly (ARGS="--write")
	@$(BIN)/python -m tests.accuracy $(ARGS)

runbooks: dev ## Write docs/runbooks.md anew from the handlers and their cases
	$(BIN)/python -m tests.docs.runbooks --write

# --universal: the same lock for every platform and Python that pyproject.toml allows.
lock: dev ## Write both lock files anew from pyproject.toml
	$(LOCK) --all-extras --output-file requirements-dev.lock pyproject.toml
	echo hatchling | $(LOCK) --extra try --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml -
LOCK := $(BIN)/uv --quiet --no-config pip compile --upgrade --generate-hashes --universal --no-annotate \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

system-packages:
	@scripts/debian-packages $(DEBIAN)

# The stamps make an installation happen once, and again when a lock or the project's metadata changes.
.venv/.installed: requirements.lock pyproject.toml
	@scripts/venv "$(PYTHON)" .venv
	@echo "Installing opsbot into .venv ..."
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.developing: requirements-dev.lock .venv/.installed
	@echo "Installing the tools of the tests into .venv ..."
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

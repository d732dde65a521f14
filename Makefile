# Backgate: `make demo` shows it, `make test` proves it. Both set up what they need.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export AWS_EC2_METADATA_DISABLED := true
# The system's own Python when it is new enough: an environment made from it works for every user.
PYTHON ?= $(shell for p in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Test files that run side by side; each job starts servers of its own.
JOBS ?= 2
PIP := .venv/bin/pip --disable-pip-version-check -q install -c constraints.txt

.PHONY: help setup setup-test demo test soak bench lint clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.setup ## make .venv/bin/backgate from this checkout

.venv/.setup: pyproject.toml constraints.txt
	@tests/packages.sh run
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

setup-test: .venv/.setup-test ## the same, with what the tests need

.venv/.setup-test: .venv/.setup tests/packages.sh tests/tools.sh
	@tests/packages.sh test
	$(PIP) -e '.[dev]'
	@tests/azurite.sh .venv/servers
	@tests/tools.sh $(PYTHON) .venv/tools
	@touch $@

demo: setup ## back up through a path, take one file back out of each backup
	@tests/packages.sh demo
	@bash docs/demo.sh

lint: setup-test ## ruff, mypy --strict, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: setup-test lint ## lint and all tests but the soak tests, JOBS at a time (2)
	.venv/bin/pytest -m 'not soak' -n $(JOBS) --dist loadfile $(ARGS)

soak: setup-test ## the tests that take minutes
	.venv/bin/pytest -m soak $(ARGS)

bench: setup-test ## against rclone mount, s3fs and restic mount, into docs/benchmarks.md
	@tests/packages.sh bench
	$(PIP) -e '.[dev,bench]'
	.venv/bin/python -m benchmarks $(ARGS)

clean: ## remove what the other targets made
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

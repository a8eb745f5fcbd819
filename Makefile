# Two commands matter: `make demo` and `make test`. Both work on a bare Debian 12 with python3 and make.
PYTHON ?= python3
export PYTHON
# Directories that come and go are checked when they hold Python.
SOURCES := rpclib drivers tests docs $(patsubst %/,%,$(sort $(dir $(wildcard examples/*.py benchmarks/*.py))))
# A broker of your own makes the local one unnecessary.
BROKERS := $(if $(RPCLIB_TEST_AMQP_URL),,rabbitmq-server) redis-server
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test fast lint docs bench bench-quick system constraints clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

demo: .venv/demo ## see services call each other; URL=... picks another backend
	@.venv/bin/rpclib demo $(if $(URL),--url '$(URL)')

test: .venv/dev system lint ## everything: lint, types, all tests on the built wheel, coverage
	@tools/timed 'all tests' .venv/bin/tox run --quiet

fast: .venv/dev ## the quick tests, on the tree as it is
	.venv/bin/pytest -m "not slow"

lint: .venv/dev ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	@tools/timed types .venv/bin/mypy $(SOURCES)

docs: .venv/dev ## build the documentation as a site, in build/docs
	.venv/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet --doctree-dir build/doctrees docs build/docs

bench: .venv-bench/done ## measure rpclib beside other libraries; BENCH="--work casts" picks
	@.venv-bench/bin/python -m benchmarks $(BENCH)

bench-quick: .venv-bench/done ## the most telling part of it, in two minutes
	@.venv-bench/bin/python -m benchmarks --quick $(BENCH)

system: ## install the Debian packages the tests use, without starting them
	@tools/timed 'Debian packages' tools/debian $(BROKERS) iproute2 strace

constraints: ## pin the newest versions that setup.cfg allows
	rm -rf .venv
# On a line of its own: `make -n` runs the lines that name MAKE.
	$(MAKE) .venv/python
	.venv/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[dev]'
	.venv/bin/python -m pip --disable-pip-version-check freeze --exclude-editable > constraints.txt

clean: ## remove everything that was built
	rm -rf .venv .venv-bench .tox build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The files below mark what is installed. .venv/dev holds all of .venv/demo.
.venv/python:
	@tools/debian python3-venv
	@$(PYTHON) -m venv .venv && touch $@

.venv/demo: setup.cfg constraints.txt | .venv/python
	@echo "installing rpclib into .venv"
	@$(PIP) --editable '.[amqp,cli,zmq]' && touch $@

.venv/dev: setup.cfg constraints.txt | .venv/python
	@echo "installing rpclib and the development tools into .venv"
	@tools/timed install $(PIP) --editable '.[dev]' && touch $@ .venv/demo

.venv-bench/done: setup.cfg constraints.txt benchmarks/requirements.txt
	@benchmarks/install

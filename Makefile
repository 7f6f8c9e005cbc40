# Needs GNU make, bash and Python 3.11 or newer; everything else goes into .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHONS := $(PYTHON) python3 python3.13 python3.12 python3.11
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 8 ? 8 : n)))
# One line a package: pip's own output is long, and its errors go to stderr and stay whole.
BRIEF := | awk '/^(Collecting|Installing|Successfully)/ { print "  " $$0; fflush() }'
ARGS ?=

.PHONY: help lenet test lint fuzz bench test-cuda test-libcuda bench-cuda cuda-resources clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

lenet: .venv/.graphc ## train LeNet on handwritten digits (ARGS="--epochs 5" passes flags on)
	@$(BIN)/graphc train lenet $(ARGS)

test: .venv/.test ## run the tests (ARGS="tests/ir -k name" selects)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

lint: .venv/.test ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

fuzz: .venv/.test ## run the slow tests: long random searches, big tensors
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow $(ARGS)

bench: .venv/.bench ## time networks and kernels beside PyTorch, JAX and others (installs them: large), ARGS="--list"
	@$(BIN)/python -m benchmarks $(ARGS)

# With CUDA_PYTHON another Python is used, one that has what is needed: make test-cuda CUDA_PYTHON=python3
CUDA_PYTHON ?= $(BIN)/python
CUDA_TESTS := tests/cuda $(wildcard tests/*/test_cuda*.py) tests/differential/test_on_device.py
CUDA_CORPUS := tests/cuda/test_conformance.py
ON_CUDA = GRAPHC_TEST_DEVICE=cuda PYTHONPATH=.:runtime $(CUDA_PYTHON)

test-cuda: $(if $(filter $(BIN)/python,$(CUDA_PYTHON)),.venv/.test .venv/.cuda) ## run the tests on a GPU, and compute-sanitizer where it is installed
	@$(ON_CUDA) -m pytest -m "not slow" $(or $(ARGS),$(CUDA_TESTS))
	@if command -v compute-sanitizer >/dev/null; then \
	  for tool in memcheck racecheck; do \
	    echo "compute-sanitizer $$tool over $(CUDA_CORPUS)"; \
	    env GRAPHC_TEST_DEVICE=cuda PYTHONPATH=.:runtime compute-sanitizer --tool $$tool --error-exitcode 1 $(CUDA_PYTHON) -m pytest -q -x $(CUDA_CORPUS); \
	  done; \
	else \
	  echo "compute-sanitizer is not installed: memory accesses and races on the GPU were not checked"; \
	fi

test-libcuda: $(if $(filter $(BIN)/python,$(CUDA_PYTHON)),.venv/.test .venv/.cuda) ## the tests for a GPU on PyCUDA itself, over a libcuda whose devices are the host
	@$(ON_CUDA) -m pytest -p tests.cuda.libcuda -m "not slow" $(or $(ARGS),$(CUDA_TESTS))

bench-cuda: $(if $(filter $(BIN)/python,$(CUDA_PYTHON)),.venv/.bench-cuda .venv/.cuda) ## time networks and kernels on a GPU beside PyTorch, JAX and CuPy
	@PYTHONPATH=.:runtime $(CUDA_PYTHON) -m benchmarks --device cuda $(ARGS)

cuda-resources: .venv/.test ## what the compiler says of the GPU benchmark's kernels: no GPU is needed
	@PYTHONPATH=.:runtime $(BIN)/python -m benchmarks.cuda_resources $(ARGS)

clean: ## remove .venv and what the tools left
	@rm -rf .venv build dist graphc.egg-info runtime/*.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.python:
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=$$python; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "making .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv && touch $@ && exit 0; \
	done; \
	if [ -n "$${found-}" ]; then \
	  echo "$$found cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	  echo "Install it (on Debian and Ubuntu: apt install python3-venv) or name another one: make PYTHON=/path/to/python" >&2; \
	else \
	  echo "graphc needs Python 3.11 or newer; tried: $(strip $(PYTHONS))." >&2; \
	  echo "Install one or name it: make PYTHON=/path/to/python" >&2; \
	fi; exit 1

.venv/.graphc: pyproject.toml | .venv/.python
	@echo "installing graphc into .venv"
	@$(BIN)/python -m pip install --disable-pip-version-check -e . $(BRIEF)
	@touch $@

.venv/.test .venv/.bench .venv/.cuda .venv/.bench-cuda: .venv/.%: pyproject.toml | .venv/.python
	@echo "installing graphc[$*] into .venv"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[$*]' $(BRIEF)
	@touch $@ .venv/.graphc

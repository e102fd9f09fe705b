# Everything lives in .venv, which the first target that needs it makes. See CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
PYTHONS ?= python3.13 python3.12 python3.11 python3
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint docs calibrate engines wheel-check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

# A virtual environment of the first Python >= 3.11 that is found.
$(VENV)/.made:
	@found=; seen=; bare=; \
	for name in $(PYTHONS); do \
		if ! version=$$("$$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null); \
			then continue; fi; \
		seen="$$seen $$name ($$version)"; \
		if ! "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then continue; fi; \
		if "$$name" -c 'import ensurepip, venv' 2> /dev/null; then found="$$name"; break; fi; \
		bare="$$name"; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
		echo "make: $$bare cannot make virtual environments: its venv module is not installed." >&2; \
		echo "make: on Debian or Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; \
	elif [ -z "$$found" ]; then \
		echo "make: Python 3.11 or newer is needed, found:$${seen:- none}." >&2; \
		echo "make: on Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv" >&2; \
		exit 1; \
	fi; \
	if [ ! -x "$(BIN)/python" ]; then \
		echo "making $(VENV) with $$found" >&2; \
		if ! "$$found" -m venv "$(VENV)"; then rm -rf "$(VENV)"; exit 1; fi; \
	fi
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	@echo "installing llm-serving-planner into $(VENV)" >&2
	@$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	@echo "installing llm-serving-planner and its development tools into $(VENV)" >&2
	@$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## Plan Llama-3.1-70B on 16 H200 for the Azure 2023 conversation trace
	$(BIN)/planner plan llama-3.1-70b --gpus h200-sxm-141gb:16 --workload azure-conv-2023 --rate 20 \
		--slo ttft=1s@p90,tpot=40ms@p90 --json demo-plan.json
	$(BIN)/planner explain demo-plan.json

test: $(VENV)/.installed-dev ## Run the whole test suite, the slow tests too
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev ## Check style, types and the catalogue
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/planner hardware check
	$(BIN)/planner models check
	$(BIN)/planner workloads check

docs: $(VENV)/.installed-dev ## Print the documentation's outputs, tables and schemas anew
	UPDATE_DOCS=1 $(BIN)/python -m pytest tests/test_docs.py

# Tables of measured kernels (docs/validate.md); the shipped records come from these.
KERNELS ?= ../shared/data/kernels
KERNEL_TABLES := gemm gemm_external attention_prefill attention_decode mla_prefill mla_decode moe \
	custom_allreduce nccl deepep nvlink_alltoall elementwise

calibrate: $(VENV)/.installed ## Fit the shipped calibrations anew to $(KERNELS), and their accuracy page
	$(BIN)/planner calibrate $(KERNEL_TABLES:%=$(KERNELS)/%.csv) --out hardware/calibrations
	$(BIN)/planner hardware check
	$(BIN)/python benchmarks/accuracy.py $(KERNELS) > docs/accuracy.md.new
	mv docs/accuracy.md.new docs/accuracy.md

# Table of measured serving runs; the shipped engine profiles name the commands that fit them to it.
RUNS ?= ../shared/data/serving/runs.csv

engines: $(VENV)/.installed ## Fit the shipped engine profiles anew to $(RUNS): ten minutes of a core
	$(BIN)/python benchmarks/engines.py $(RUNS)
	$(BIN)/planner hardware check

wheel-check: $(VENV)/.made ## Build the wheel and run it from an empty environment, in another place
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	echo "wheel-check: building the wheel"; \
	$(PIP) wheel . --no-deps --wheel-dir "$$work/wheel"; \
	ls "$$work/wheel"; \
	echo "wheel-check: installing it into an empty environment, without development tools"; \
	$(BIN)/python -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install "$$work"/wheel/*.whl; \
	if "$$work/venv/bin/python" -c 'import pytest' 2> /dev/null; then \
		echo "wheel-check: development tools came with the wheel" >&2; exit 1; \
	fi; \
	cd "$$work"; unset PLANNER_CATALOG PYTHONPATH; \
	echo "wheel-check: planner --help and planner plan, in $$work"; \
	"$$work/venv/bin/planner" --help > help.txt; grep -q '^Usage: planner' help.txt; \
	"$$work/venv/bin/planner" plan llama-3.1-8b --gpus h100-sxm-80gb:8 --workload azure-conv-2023 \
		--rate 10 --slo ttft=1s@p90,tpot=30ms@p90 --json plan.json; \
	"$$work/venv/bin/planner" explain plan.json > explain.txt; grep -q 'Plan P1' explain.txt; \
	"$$work/venv/bin/planner" report plan.json --out report.html; grep -q '</html>' report.html; \
	for kind in hardware models workloads; do "$$work/venv/bin/planner" $$kind check; done; \
	echo "wheel-check: the wheel carries its catalogue and works on its own"

clean: ## Remove the environment, caches and what make demo wrote
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info demo-plan.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

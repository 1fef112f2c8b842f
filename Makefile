# `make help` lists the targets. Variables can be set on the command line, as in `make run PORT=9000`.

PYTHON ?= python3
VENV   ?= .venv
HOST   ?= 127.0.0.1
PORT   ?= 8080
REPOSITORY ?= models

# The tests compare llama.cpp with transformers, which needs PyTorch. Any build will do; this is the one that is
# tested. On a machine with a GPU plain pip takes a large CUDA build: point TORCH_ARGS at the index of CPU builds.
TORCH      ?= torch==2.13.0
TORCH_ARGS ?=

# A real tritonserver that the KServe protocol is compared with, from a wheel for Linux on x86-64.
TRITON_VENV := .venv-triton

# llama-cpp-python is compiled on this machine, for this machine's processor. Its multimodal part is not used.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

# Python environments of engines, for CPUs, that `make test-engines` needs. uv does not read what pip was told, so the
# folders of wheels that pip is to look in are passed on to it.
STATE ?= .state
ENGINES := transformers vllm openvino openvino-export exllamav2-cpu
FIND_LINKS ?= $(shell $(BIN)/python -m pip config list 2>/dev/null | sed -n "s/.*\.find-links='\(.*\)'/\1/p" | tail -n 1)
ENV_CREATE = $(BIN)/modelyard env create --refresh --device cpu --state-dir $(STATE) $(foreach link,$(FIND_LINKS),--find-links $(link))

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup run test test-triton envs test-engines gpu-check lint fmt bench bench-peers demo-model clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.serve ## make .venv with all that serving needs

run: $(VENV)/.serve ## serve models/ at http://127.0.0.1:8080
	$(BIN)/modelyard serve $(REPOSITORY) --host $(HOST) --port $(PORT)

test: $(VENV)/.test ## run all tests
	$(BIN)/python -m pytest $(TESTS)

test-triton: $(VENV)/.test $(TRITON_VENV)/.ready ## ask a real tritonserver and Modelyard the same questions
	$(BIN)/python -m pytest tests/triton

envs: $(ENGINES:%=$(STATE)/environments/%/environment.json) ## make the engines' environments in .state, for CPUs (4 GB)

test-engines: $(VENV)/.test envs ## run the tests of the engines that have environments of their own
	MODELYARD_STATE=$(abspath $(STATE)) $(BIN)/python -m pytest $(or $(TESTS),tests/engines)

gpu-check: $(VENV)/.test ## prove the engines on this machine's NVIDIA GPUs, and log the figures (ARGS=--help says more)
	$(BIN)/python -m benchmarks.gpu_check --state-dir $(STATE) $(ARGS)

lint: $(VENV)/.test ## ruff, mypy (strict) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.test ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test ## measure all figures of benchmarks/LOG.md, in one table (some 90 minutes; ARGS=--plan says which; keep the machine quiet)
	MODELYARD_STATE=$(abspath $(STATE)) $(BIN)/python -m benchmarks.everything $(ARGS)

bench-peers: $(VENV)/.test $(TRITON_VENV)/.ready $(patsubst %,$(STATE)/environments/%/environment.json,transformers vllm) ## install other servers and measure them beside Modelyard (some 40 minutes; ARGS=--quick: below ten)
	MODELYARD_STATE=$(abspath $(STATE)) $(BIN)/python -m benchmarks.peers $(foreach link,$(FIND_LINKS),--find-links $(link)) $(ARGS)

demo-model: $(VENV)/.test ## train models/demo anew (about ten minutes)
	$(BIN)/python -m examples.demo_model.train

clean: ## remove .venv, the engines' environments and caches
	rm -rf $(VENV) $(TRITON_VENV) $(STATE)/environments .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Modelyard needs Python 3.11 or newer; name one with `make PYTHON=...`'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml Makefile | $(VENV)/bin/python
	@$(BIN)/python -c 'import llama_cpp' 2>/dev/null || { \
	  command -v c++ >/dev/null || { echo 'llama.cpp is compiled here, which needs a C++ compiler: apt install g++'; exit 1; }; \
	  echo '--- Installing. llama.cpp is compiled for this machine, once: about six minutes on two cores.'; }
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	$(PIP) install --quiet $(TORCH_ARGS) '$(TORCH)'
	$(PIP) install --quiet --editable '.[dev,demo,bench]'
	@touch $@

SETS = $(wildcard $(foreach file,cpu.txt overrides.txt,$(1:%=backends/%/env/$(file))))

$(STATE)/environments/transformers/environment.json: $(call SETS,transformers rwkv gptq) | $(VENV)/.serve
	$(ENV_CREATE) transformers --backend transformers --backend rwkv --backend gptq

$(STATE)/environments/vllm/environment.json: $(call SETS,vllm) | $(VENV)/.serve
	$(ENV_CREATE) vllm

$(STATE)/environments/openvino/environment.json: $(call SETS,openvino) | $(VENV)/.serve
	$(ENV_CREATE) openvino

$(STATE)/environments/openvino-export/environment.json: $(wildcard backends/openvino/env/export/*.txt) | $(VENV)/.serve
	$(ENV_CREATE) openvino-export

# exllamav2's own code, for a processor to run: its kernels are replaced by the tests.
$(STATE)/environments/exllamav2-cpu/environment.json: $(call SETS,transformers) backends/exllamav2/env/cuda.txt | $(VENV)/.serve
	$(ENV_CREATE) exllamav2-cpu --backend transformers --package "$$(grep ^exllamav2== backends/exllamav2/env/cuda.txt)"

$(TRITON_VENV)/.ready: tests/triton/requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m venv --clear $(TRITON_VENV)
	$(TRITON_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r $<
	@touch $@

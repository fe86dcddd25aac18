# Every target that needs Python makes .venv first; `make setup PYTHON=python3.12` chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
NATIVE  = $(wildcard csrc/*.* csrc/*/*.*)

# Where the sanitizers' builds go, and the tests that run under them. Their runtime must be in the
# process before Python; LeakSanitizer would report what Python itself keeps.
SANITIZED = build/sanitized
# Not those that draw with OpenGL, count allocations or compare instruction sets.
NATIVE_TESTS = $(addprefix tests/test_,rendering.py rendering_cache.py rendering_faults.py rendering_scene.py outputs.py)
PRELOAD = $(shell $(CXX) -print-file-name=lib$(1).so):$(shell $(CXX) -print-file-name=libstdc++.so)
SECONDS = 600

.PHONY: help setup demo test lint check bench gallery asan tsan fuzz gpu docs clean

help:
	@echo "make demo    install, then train an agent from one sentence (CPU, no download); results in runs/demo"
	@echo "make test    install, then run the whole test suite"
	@echo "make check   lint, types, import contracts, tests, every benchmark body once"
	@echo "make bench   measure; writes bench/results/*.json and the tables of README.md"
	@echo "make gallery  MuJoCo's pictures beside ours, with figures, in out/gallery/index.html"
	@echo "make asan    the renderer's tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make tsan    the same under ThreadSanitizer"
	@echo "make fuzz    random scenes under AddressSanitizer for SECONDS=600"
	@echo "make gpu     the tests and benchmarks that need a CUDA device (VENV= PYTHON=...: install nothing)"
	@echo "make docs    HTML documentation in docs/_build/html"
	@echo "make setup   only install (.venv, editable, with the development tools)"

setup: $(STAMP)

$(STAMP): pyproject.toml CMakeLists.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -e vlmrm_fast/kernels || ln -s ../kernels vlmrm_fast/kernels
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.1"
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --config-settings=cmake.define.VLMRM_WERROR=ON
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/vlmrm-fast train cartpole-upright --run-dir runs/demo --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test
	$(BIN)/python -m pytest bench --benchmark-disable -q

bench: $(STAMP)
	@mkdir -p bench/results
	$(BIN)/python -m pytest bench -m "not gpu" --benchmark-json bench/results/cpu.json
	$(BIN)/python bench/tables.py

gallery: $(STAMP)
	MUJOCO_GL=$${MUJOCO_GL:-egl} PYTHONPATH=tests $(BIN)/python bench/gallery.py

$(SANITIZED)/%/.built: CMakeLists.txt $(NATIVE) $(STAMP)
	$(BIN)/cmake -S . -B $(SANITIZED)/$* -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -DVLMRM_SANITIZE=$* -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build $(SANITIZED)/$* --parallel
	@touch $@

asan: $(SANITIZED)/address,undefined/.built
	VLMRM_FAST_TEST_CORE=$(<D) LD_PRELOAD=$(call PRELOAD,asan) ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python -m pytest --noconftest -p native_build -q $(NATIVE_TESTS) -k "not system_gives"

tsan: $(SANITIZED)/thread/.built
	VLMRM_FAST_TEST_CORE=$(<D) LD_PRELOAD=$(call PRELOAD,tsan) TSAN_OPTIONS=suppressions=tests/tsan.supp:die_after_fork=0:exitcode=66 \
	  $(BIN)/python -m pytest --noconftest -p native_build -q $(NATIVE_TESTS) -k "not system_gives"

fuzz: $(SANITIZED)/address,undefined/.built
	VLMRM_FAST_TEST_CORE=$(<D) LD_PRELOAD=$(call PRELOAD,asan) ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python tests/fuzz_scenes.py --seconds $(SECONDS)

# `make gpu VENV= PYTHON=python3` takes an interpreter as it is and installs nothing; see bench/gpu.py.
gpu: $(if $(VENV),$(STAMP))
	$(if $(VENV),$(BIN)/python,$(PYTHON)) bench/gpu.py $(GPU_FLAGS)

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache

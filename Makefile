# Each target makes the virtual environment it needs; nothing else has to be installed but Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
LIGHT := .venv-figures/bin
RUN ?= world
CONFIG ?= config/world.yaml

BASES := results/reference/bases

.PHONY: help reproduce plan bases smoke test learn cluster slow deviations bench bench-gpu figures freeze lint format clean

help:
	@echo "make reproduce   the whole reproduction in miniature: data, models, students, scores, figures"
	@echo "make plan        what a configuration will cost before it runs (CONFIG=config/world.yaml, or several files)"
	@echo "make bases       pretrains the bases anew that come with the project, and replaces them"
	@echo "make smoke       a corner of it"
	@echo "make test        the tests"
	@echo "make learn       that models learn: a run in which teacher, SFT and no training must differ"
	@echo "make cluster     the tests on a real SLURM, where there is one (.ci/slurm starts one)"
	@echo "make slow        the tests that take minutes (kills, reruns, whole runs)"
	@echo "make deviations  what each departure of the released code is worth, over three seeds"
	@echo "make bench       time and memory of losses and training steps -> benchmarks/README.md"
	@echo "make bench-gpu   the same on a GPU, beside the peers that are installed -> benchmarks/gpu.md"
	@echo "make figures     redraw tables and figures from results/reference/world, without torch"
	@echo "make freeze      copy the score files of results/RUN to results/reference/RUN (RUN=world)"
	@echo "make lint        formatter, linters, types, workflow lint"
	@echo "make format      apply the formatters"
	@echo "make clean       remove the virtual environments (results stay)"

.venv/.ready: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

.venv-figures/.ready: requirements-figures.lock
	$(PYTHON) -m venv .venv-figures
	$(LIGHT)/pip install --quiet --disable-pip-version-check -r requirements-figures.lock
	touch $@

reproduce: .venv/.ready
	$(BIN)/snakemake --cores all

plan: .venv/.ready
	$(BIN)/python -m atkd plan --config $(CONFIG)

bases: .venv/.ready
	$(BIN)/snakemake bases --cores all --config name=bases shipped_bases=null
	$(BIN)/python -m atkd bases --run results/bases --output $(BASES)

smoke: .venv/.ready
	$(BIN)/snakemake --cores all --configfile config/smoke.yaml

test: .venv/.ready
	$(BIN)/python -m pytest -m "not slow and not cluster and not learn" -n 2 --dist loadfile

learn: .venv/.ready
	$(BIN)/python -m pytest -m learn

cluster: .venv/.ready
	$(BIN)/python -m pytest -m cluster

# Where torchao is found, transformers imports it with every model: tests that need it put it on their path.
.venv/extras: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $@ torchao==0.18.0

slow: .venv/.ready .venv/extras
	$(BIN)/python -m pytest -m slow

deviations: .venv/.ready
	$(BIN)/snakemake deviations --cores all --configfile config/world.yaml config/world/deviations.yaml

# Liger's own requirements are left out: the loss needs none that is not installed.
.venv/.bench: .venv/.ready pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps liger-kernel==0.8.5
	touch $@

bench: .venv/.bench
	PYTHONPATH=. $(BIN)/python benchmarks/report.py

# A GPU needs a torch of its own: whatever Python is named runs it (make bench-gpu PYTHON=python).
bench-gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py

figures: .venv-figures/.ready
	$(LIGHT)/python -m atkd report redraw --run results/reference/$(RUN) --published results/published.csv

freeze: .venv/.ready
	$(BIN)/python -m atkd report freeze --run results/$(RUN) --output results/reference/$(RUN)

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

clean:
	rm -rf .venv .venv-figures .snakemake

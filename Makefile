# `make demo` and `make test` set everything up by themselves, in .venv; both are repeatable.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster test-reference check bit-equal lock bench bench-data bench-haar bench-checkpoint bench-zero bench-resume bench-tracking bench-evaluation bench-scaling bench-precision slurm-up slurm-down clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

# pip, not uv: here and in CI pip takes torch from the disk, where others download 3 GB.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,eval,embedded,slurm,deepspeed]'
	-$(BIN)/wavegan doctor --build
	@touch $@

demo: $(READY) ## shards, a run in 2 processes, evaluation: data/demo and runs/demo, under a quarter of an hour
	@BIN=$(BIN) launchers/demo.sh

test: $(READY) ## all tests but those that need a Slurm
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/cluster $(TEST_FLAGS)

test-cluster: $(READY) ## those on a real Slurm on this machine, as root; slurm/local/install.sh has its packages
	WAVEGAN_NEEDS_SLURM=1 $(BIN)/python -m pytest tests/cluster $(TEST_FLAGS)

test-reference: $(READY) ## all tests with the transform in plain PyTorch
	WAVEGAN_KERNELS=reference $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/cluster $(TEST_FLAGS)

check: $(READY) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h')
	$(BIN)/mypy

bit-equal: $(READY) ## BASE=REVISION: trains before and after a change and compares every number bit for bit
	$(BIN)/python benchmarks/bit_equal.py --base $(or $(BASE),main)

lock: ## installs the newest versions that pyproject.toml allows into a new environment and writes constraints.txt
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,eval,embedded,slurm,deepspeed]'
	{ sed -n '/^#/p' constraints.txt; $(VENV)/lock/bin/pip freeze --exclude-editable; } >$(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt && rm -rf $(VENV)/lock

docs: $(READY) ## docs/configuration.md from the schema
	$(BIN)/python -m wavegan_dist.config.reference > docs/configuration.md

bench: $(READY) bench-data bench-tracking bench-checkpoint bench-evaluation ## all benchmarks: tables, and JSON in benchmarks/results
	$(BIN)/python benchmarks/step.py

bench-data: $(READY) ## the loader alone
	$(BIN)/python benchmarks/data.py

bench-evaluation: $(READY) ## evaluation against torch-fidelity alone, its floors and its memory
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/evaluation.py --floors
	$(BIN)/python benchmarks/evaluation.py --memory

bench-scaling: $(READY) ## 1 and 2 processes: what a step's time goes to, and the plan's error
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/scaling.py --config configs/photos64.yaml train.precision=fp32 --batch 32 --steps 2 --rounds 5

bench-precision: $(READY) ## the demo in bf16 beside fp32, several seeds
	$(BIN)/python benchmarks/precision.py

bench-tracking: $(READY) ## what tracking costs, also while its server is away
	$(BIN)/python benchmarks/tracking.py

bench-checkpoint: $(READY) ## how long a checkpoint keeps training waiting
	$(BIN)/python benchmarks/checkpoint.py

bench-zero: $(READY) ## what each process holds under DDP and ZeRO
	$(BIN)/python benchmarks/zero.py

bench-resume: $(READY) ## 200 kills at random moments; every run must end as the straight one, bit for bit
	$(BIN)/python benchmarks/resume.py

bench-haar: $(READY) ## the wavelet transform alone, with a roofline picture
	$(BIN)/python benchmarks/haar.py

slurm-up: ## a real Slurm of two nodes on this machine, as root; slurm/local/install.sh has its packages
	@slurm/local/up.sh

slurm-down: ## ends it and leaves nothing behind
	@slurm/local/down.sh

clean: ## what the front doors made; the environment stays
	rm -rf data/demo runs/demo

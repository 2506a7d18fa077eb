# `make demo` and `make test` install everything they need into .venv. Both can be repeated: `make demo` resumes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-cluster test-reference check audit fuzz bit-equal lock docs site dashboard tour first-hour wheel-check bench bench-data bench-startup bench-haar bench-gpu bench-checkpoint bench-zero bench-resume ablations bench-tracking bench-evaluation bench-scaling bench-precision slurm-up slurm-down clean

help: ## print this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 18

# pip rather than uv: on our machines and in CI, pip finds torch on the disk, whereas uv would download 3 GB.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,eval,export,embedded,slurm,deepspeed]'
	-$(BIN)/wavegan doctor --build
	@touch $@

demo: $(READY) ## write shards, train in 2 processes, evaluate: data/demo and runs/demo, in less than 15 minutes
	@BIN=$(BIN) launchers/demo.sh

test: $(READY) ## run the tests that take less than 10 seconds each, and not those on a Slurm cluster
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/cluster -m "not slow" $(TEST_FLAGS)

test-all: $(READY) ## run all tests except those on a Slurm cluster
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/cluster $(TEST_FLAGS)

test-cluster: $(READY) ## run the tests on a real Slurm on this machine, as root; slurm/local/install.sh installs Slurm
	WAVEGAN_NEEDS_SLURM=1 $(BIN)/python -m pytest tests/cluster $(TEST_FLAGS)

test-reference: $(READY) ## run all tests with the wavelet transform in plain PyTorch
	WAVEGAN_KERNELS=reference $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/cluster $(TEST_FLAGS)

check: $(READY) ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h')
	$(BIN)/mypy

audit: ## compare the versions in constraints.txt with the known vulnerabilities of these packages; needs pypi.org
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

fuzz: $(READY) ## feed 100,000 changed files to each reader, half an hour; a few hundred are in make test
	PYTHONPATH=.:benchmarks $(BIN)/python -m tests.fuzz --inputs 100000

bit-equal: $(READY) ## train with the code of BASE=REVISION and of this checkout, and compare every number bit for bit
	$(BIN)/python benchmarks/bit_equal.py --base $(or $(BASE),main)

lock: ## install the newest versions that pyproject.toml allows into a new environment, and write constraints.txt
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,eval,export,embedded,slurm,deepspeed]'
	{ sed -n '/^#/p' constraints.txt; $(VENV)/lock/bin/pip freeze --exclude-editable; } >$(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt && rm -rf $(VENV)/lock

docs: $(READY) ## generate docs/configuration.md from the schema
	$(BIN)/python -m wavegan_dist.config.reference > docs/configuration.md

site: $(READY) ## build the documentation as a web site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

dashboard: $(READY) ## train three short runs and take the screenshots of docs/mlflow.md in MLflow's pages: runs/dashboard
	PYTHONPATH=.:benchmarks $(BIN)/python docs/dashboard.py

tour: $(READY) ## run the notebook docs/tour.ipynb
	$(BIN)/python -m pytest tests/test_docs.py -k tour

first-hour: $(READY) ## run the commands of README.md as a newcomer would, and time them: less than 20 minutes
	$(BIN)/python benchmarks/first_hour.py

wheel-check: $(READY) ## build the package and use it in empty environments of PYTHONS="python3.11 python3.12 ..."
	$(BIN)/python benchmarks/packages.py --python $(or $(PYTHONS),$(PYTHON))

bench: $(READY) bench-data bench-tracking bench-checkpoint bench-evaluation ## run the data, tracking, checkpoint, evaluation and step benchmarks: tables, and JSON in benchmarks/results
	$(BIN)/python benchmarks/step.py

bench-data: $(READY) ## measure the loader alone
	$(BIN)/python benchmarks/data.py

bench-startup: $(READY) ## measure the start of training on datasets of 10 to 100,000 shards
	$(BIN)/python benchmarks/startup.py

bench-evaluation: $(READY) ## compare the speed of evaluation with torch-fidelity; measure floors and memory
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/evaluation.py --floors
	$(BIN)/python benchmarks/evaluation.py --memory

bench-scaling: $(READY) ## measure the parts of a step with 1 and 2 processes, and the error of wavegan plan
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/scaling.py --config configs/photos64.yaml train.precision=fp32 --batch 32 --steps 2 --rounds 5

bench-precision: $(READY) ## train the demo in bf16 and fp32, with several seeds, and compare the metrics
	$(BIN)/python benchmarks/precision.py

bench-tracking: $(READY) ## measure the cost of tracking while the MLflow server is up and while it is down
	$(BIN)/python benchmarks/tracking.py

bench-checkpoint: $(READY) ## measure how long a checkpoint blocks training
	$(BIN)/python benchmarks/checkpoint.py

bench-zero: $(READY) ## measure the memory of each process under DDP and ZeRO
	$(BIN)/python benchmarks/zero.py

bench-resume: $(READY) ## kill runs 200 times at random moments; every run must equal an uninterrupted run bit for bit
	$(BIN)/python benchmarks/resume.py

bench-haar: $(READY) ## measure the wavelet transform alone, and draw its roofline plot
	$(BIN)/python benchmarks/haar.py

bench-gpu: $(READY) ## run all GPU tests and benchmarks on this machine's GPU, 9 minutes: docs/gpu.md
	[ -e build/gpu/data/index.json ] || PYTHON=$(BIN)/python benchmarks/gpu/pack.sh
	PYTHON=$(BIN)/python benchmarks/gpu/run.sh

ablations: $(READY) ## train and evaluate every row of STUDY (default: configs/ablations/cifar10.yaml) that has no result yet
	$(BIN)/python benchmarks/ablations.py $(or $(STUDY),configs/ablations/cifar10.yaml)

slurm-up: ## start a real Slurm cluster of two nodes on this machine, as root; slurm/local/install.sh installs Slurm
	@slurm/local/up.sh

slurm-down: ## stop this cluster and delete its files
	@slurm/local/down.sh

clean: ## delete data/demo and runs/demo, but not .venv
	rm -rf data/demo runs/demo

# Every target works on a fresh clone: it makes .venv and installs what it needs, once. Needs Python >= 3.11 and make.
#   make train ARGS="model=mlp optim.lr=3e-3 launch.ranks=4"      ARGS goes to the program behind the target
#   make test ARGS="tests/nn -k linear"                           PYTHON=... decides which Python makes .venv

.DEFAULT_GOAL := help
.PHONY: help install train full test test-mpi test-machines test-device mutants parity sanitize lint format bench test-install
.PHONY: constraints clean
SETUP := @PYTHON="$(PYTHON)" sh tools/bootstrap.sh
BIN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## .venv with everything needed to run, test and lint
	$(SETUP) run test lint

train: ## train a small CNN on handwritten digits, on 2 MPI ranks (ARGS: Hydra overrides)
	$(SETUP) run
	@$(BIN)/rushlight train $(ARGS)

test: ## the whole test suite, two tests at a time, warnings are errors (ARGS: pytest's; -n 0: one at a time)
	$(SETUP) run test
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-mpi: ## the tests that run on ranks, under mpirun (RANKS=4, ARGS: pytest's)
	$(SETUP) run test
	@$(BIN)/python -m tests.mpi.run $(or $(RANKS),4) $(ARGS)

test-machines: ## kernels, ops and nn on every CPU that this one can stand in for (slow; ARGS=--short: a sample)
	$(SETUP) run test
	@$(BIN)/python tools/test_machines.py $(ARGS)

mutants: ## plants faults one at a time and looks whether the tests notice (installs PyTorch; ARGS: --sample 10, --only engine)
	$(SETUP) run test parity
	@$(BIN)/python tools/mutants.py $(ARGS)

test-device: ## every op in every dtype on device arrays: a strict stand-in for CuPy, and a GPU where there is one
	$(SETUP) run test
	@RUSHLIGHT_DEVICE=whole $(BIN)/python -m pytest tests/device tests/cuda tests/cuda_on_cpu $(ARGS)

full: ## whole what CI runs a sample of, and what it leaves out: machines, sanitizer, mutants, installs (hours)
	@$(MAKE) --no-print-directory test-machines
	@$(MAKE) --no-print-directory sanitize
	@$(MAKE) --no-print-directory mutants
	@$(MAKE) --no-print-directory test-install

parity: ## the tests that compare with PyTorch (installs it, for comparison only)
	$(SETUP) run test parity
	@$(BIN)/python -m pytest tests/parity $(ARGS)

sanitize: ## all C under AddressSanitizer and UBSan: hostile calls, then the suites (ARGS: --short, --seed N, ...)
	$(SETUP) run test
	@$(BIN)/python tools/sanitize.py $(ARGS)

lint: ## ruff, layout, mypy --strict, import directions
	$(SETUP) run test lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: ## lay out the code as `make lint` wants it
	$(SETUP) run test lint
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: ## benchmarks against PyTorch in the same run: tables and JSON
	$(SETUP) run parity
	@$(BIN)/python -m benchmarks $(ARGS)

test-install: ## every distribution alone, in a clean environment, with what it declares (slow)
	$(SETUP) run
	@$(BIN)/python tools/check_install.py $(ARGS)

constraints: ## renew tools/constraints.txt from the newest versions that resolve
	$(SETUP) run test lint
	@$(BIN)/python tools/renew_constraints.py

clean: ## remove .venv and what tests and linters left
	@rm -rf .venv .venv.lock .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .sanitize
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

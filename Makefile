# Outlast: what a stranger types. Every target sets up what it needs, says what it does and how long it took.
.PHONY: help setup demo check model-check test test-lab mutants bench bench-planner bench-simulation clean
V := .venv/bin

# What Python has compiled is kept, apart from the sources, also where the environment forbids it: the tests start
# hundreds of processes, and each one would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.compiled

help:
	@echo "make demo      three hosts, real virtual machines: power loss, network loss, storage loss, and what happens"
	@echo "make test      everything: lint, types, floors, unit and simulated tests, then the lab's (under 12 minutes)"
	@echo "make check     lint, types, floors, unit and simulated tests (some 2 minutes on two cores)"
	@echo "make model-check  every order of everything in a small world: two hosts, one VM (long; docs/model-check.md)"
	@echo "make test-lab  all tests on real hosts in namespaces, with real libvirt and QEMU: also those too long for make test"
	@echo "make mutants   each safety rule switched off in turn, with a larger bound than in make check"
	@echo "make bench     failover times and idle costs, measured in the lab"
	@echo "make bench-simulation  events a second in the simulated world, from 3 to 64 hosts"
	@echo "make bench-planner  the planner's speed, and what it places against the best there is (installs OR-tools; about 5 minutes)"
	@echo "make clean     take down a lab that was left behind, remove what was built"

setup:
	@scripts/setup

demo: setup
	@scripts/timed "the demonstration" $(V)/outlast lab demo

check: setup
	@scripts/timed "lint" $(V)/ruff check --quiet .
	@scripts/timed "format" $(V)/ruff format --check --quiet .
	@scripts/timed "floors" $(V)/lint-imports --no-cache
	@scripts/beside 'scripts/timed "types" $(V)/mypy' \
		scripts/timed "unit and simulated tests" $(V)/pytest tests/unit -n 2
	@scripts/timed "scenarios in the simulated world" $(V)/outlast simulate scenarios

model-check: setup
	@scripts/timed "every state of the small world" $(V)/python -m outlast.sim.exhaustive --bound large

test: check
	@scripts/timed "tests on real hosts, in four labs side by side" $(V)/pytest tests/lab -n 4 --dist loadgroup -m "not long"

test-lab: setup
	@scripts/timed "all tests on real hosts, in four labs side by side" $(V)/pytest tests/lab -n 4 --dist loadgroup

mutants: setup
	@scripts/timed "each safety rule switched off in turn" env OUTLAST_MUTANT_SEEDS=400 $(V)/pytest -rP tests/unit/test_mutants.py

bench: setup
	@scripts/timed "failover times" $(V)/outlast lab bench-failover --runs 10
	@scripts/timed "idle costs" $(V)/outlast lab bench-idle

bench-simulation: setup
	@scripts/timed "the simulated world's speed" $(V)/python scripts/bench_simulation.py

bench-planner: setup
	@scripts/timed "OR-tools, which nothing else needs" env PATH="$$PATH:.tools/bin" uv sync --frozen --quiet --extra optimiser
	@scripts/timed "the optimiser's tests" $(V)/pytest tests/unit/test_optimiser.py
	@scripts/timed "the planner, greedy and optimised" $(V)/python scripts/bench_planner.py

clean:
	@if [ -x $(V)/outlast ]; then $(V)/outlast lab down; fi
	@rm -rf .venv .tools .compiled .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

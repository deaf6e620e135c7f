# All targets write only inside this checkout. `make help` lists the targets.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo check fuzz lint covered server oldest oldest-prefect warm-pythons test system chaos chaos-bounded bench budgets deb clean venv

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif
export PYTHON

PY := .venv/bin/python
PYTEST := $(PY) -m pytest -q
TOGETHER := tests/envs/together.sh
GATED := runnerd/core/machine.py,runnerd/core/verdicts.py,runnerd/core/limits.py,runnerd/journal/journal.py,runnerd/journal/journal_file.py
COVERED := $(PY) -m coverage run --rcfile=/dev/null --branch --include=$(GATED) -m pytest -q tests/unit
COVERAGE := $(PY) -m coverage report --rcfile=/dev/null --show-missing --fail-under=100
# The spawner uses only the standard library, so its tests do not depend on the versions of libraries.
OLDEST := .venv-oldest/bin/python -m pytest -q tests/unit tests/process --ignore-glob='*/test_spawner_*'

# $(call step,what,command): print what is done, run the command, and on failure print what failed
define step
@echo "==> $(1)"; $(2) || { echo "==> failed: $(1)" >&2; exit 1; }
endef

help:
	@echo 'make demo    run a tour: a Prefect server, a few deployments and runnerd, in this directory only (five minutes)'
	@echo 'make check   check before a commit: format, lint, types, unit and process tests (two minutes)'
	@echo 'make fuzz    try odd files, requests, lines, templates and answers for SECONDS=600 in all, and print what breaks'
	@echo 'make test    run all checks: check, coverage gate, oldest libraries, real Prefect servers, systemd, chaos (45 minutes)'
	@echo 'make oldest-prefect  test against old versions of Prefect (an hour; VERSIONS= chooses them)'
	@echo 'make warm-pythons  compare cold and warm starts of Prefect 2 and 3 under other Pythons (20 minutes)'
	@echo 'make system  test the package on temporary machines with systemd 252 and 257 (root; Debian; ten minutes)'
	@echo 'make chaos   break a host on purpose, ROUNDS=20 times; SEED= repeats; MAJOR=2 or 3; each step once: STEPS=1'
	@echo "make bench   measure runnerd beside Prefect's own and write docs/benchmarks.md (hours); BENCH=quick: ten minutes;"
	@echo '             BENCH=report: write it again from the last figures'
	@echo 'make budgets measure load, status and lag with many deployments and runs against their budgets'
	@echo 'make deb     build dist/runnerd_<version>_all.deb; VERSION= sets the version, COMMIT= the commit; LINTIAN=yes checks it'
	@echo '             deb, system and test need packages of Debian; if any is missing, make deb prints the line that installs them'
	@echo 'make clean   remove everything that these targets created'
	@echo 'PYTHON=...   use another Python than $(or $(PYTHON),the default (none found))'

venv:
	@[ -n "$$PYTHON" ] || { echo 'cannot find Python 3.11 or newer; set it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cannot use $$PYTHON: runnerd needs Python 3.11 or newer; set another: make PYTHON=/path/to/python3" >&2; exit 1; }

demo: venv
	@tests/envs/venv.sh demo
	@.venv-demo/bin/runnerd demo

lint: venv
	@tests/envs/venv.sh dev
	$(call step,format (to correct: .venv/bin/ruff format),$(PY) -m ruff format --check -q .)
	$(call step,lint,$(PY) -m ruff check -q .)
	$(call step,types,$(PY) -m mypy --no-error-summary)

check: lint
	$(call step,unit and process tests,$(PYTEST) tests/unit tests/process)
	$(call step,a few examples of each fuzzing target,$(PYTEST) $(TARGETS))

SECONDS ?= 600
TARGETS := $(sort $(wildcard tests/fuzz/fuzz_*.py))

# The time is divided among the targets; each is tried, also after another has found something.
fuzz: venv
	@tests/envs/venv.sh dev
	@found=; for target in $(TARGETS); do \
		echo "==> $$target for $$(( $(SECONDS) / $(words $(TARGETS)) )) s"; \
		FUZZ_SECONDS=$$(( $(SECONDS) / $(words $(TARGETS)) )) $(PYTEST) -s $$target || found="$$found $$target"; \
	done; [ -z "$$found" ] || { echo "==> found something:$$found" >&2; exit 1; }

covered: lint
	$(call step,unit tests,$(COVERED))
	$(call step,branch coverage of $(GATED),$(COVERAGE))

oldest: venv
	@tests/envs/venv.sh oldest
	$(call step,unit and process tests with the oldest libraries,$(OLDEST))

# For a night: VERSIONS= names others than the script does.
oldest-prefect: venv
	@tests/envs/venv.sh dev
	$(call step,contract suite and end-to-end tests on old versions of Prefect,PY=$(PY) tests/envs/oldest_prefect.sh $(VERSIONS))

# Where pyenv has other Pythons than the one that most tests use.
warm-pythons: venv
	@tests/envs/venv.sh dev
	$(call step,warm starts of real Prefects under other Pythons,PY=$(PY) tests/envs/warm_pythons.sh $(VERSIONS))

# Both halves take about the same time.
HALF := prefect3 or readme or journal_trouble or other_workers or bad_scripts or examples
SERVERS := 'Prefect 3 and some of the rest' "$(PYTEST) tests/server -k '$(HALF)'" \
	'Prefect 2 and the rest' "$(PYTEST) tests/server -k 'not ($(HALF))'"
MACHINES := PY=$(PY) tests/system/run.sh

server: venv
	@tests/envs/venv.sh dev
	$(call step,Prefect environments,tests/envs/make.sh)
	$(call step,tests against real Prefect servers of both majors at once,$(TOGETHER) $(SERVERS))

system: venv
	@tests/envs/venv.sh dev
	$(call step,the package under systemd on Debian 12 and 13 at once,$(MACHINES))

ROUNDS ?= 20
MAJOR ?= both
CHAOS := $(PY) -m tests.chaos.chaos
BOUNDED := --steps --rounds 1000 --seed 1 --seconds 100

chaos: venv
	@tests/envs/venv.sh dev
	$(call step,Prefect environments,tests/envs/make.sh)
	$(call step,chaos,$(CHAOS) --rounds $(ROUNDS) --major $(MAJOR) $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps))

chaos-bounded: venv
	@tests/envs/venv.sh dev
	$(call step,Prefect environments,tests/envs/make.sh)
	$(call step,chaos for some minutes of both majors at once,$(TOGETHER) \
		'Prefect 2' "$(CHAOS) $(BOUNDED) --major 2" 'Prefect 3' "$(CHAOS) $(BOUNDED) --major 3")

# Checks that mostly wait run at the same time as others, so that all fit into half an hour on a small machine.
test: lint
	@tests/envs/venv.sh oldest
	$(call step,Prefect environments,tests/envs/make.sh)
	$(call step,unit and process tests with the newest and the oldest libraries and the package under systemd at once,\
		$(TOGETHER) 'newest: unit' "$(COVERED)" 'newest: process' "$(PYTEST) tests/process $(TARGETS)" oldest "$(OLDEST)" \
		'Debian 12 and 13' "$(MACHINES)")
	$(call step,branch coverage of $(GATED),$(COVERAGE))
	@$(MAKE) --no-print-directory server chaos-bounded
	@echo '==> all checks passed'

bench: venv
	@tests/envs/venv.sh dev
	@tests/envs/venv.sh lean
	$(call step,Prefect environments,tests/envs/make.sh)
	@$(PY) -m tests.bench

budgets: venv
	@tests/envs/venv.sh dev
	@tests/envs/venv.sh lean
	@over=0; for script in tests/bench/bench_*.py; do \
		$(PY) -m $$(echo $${script%.py} | tr / .) || { over=1; echo "==> over budget: $$script" >&2; }; done; exit $$over

deb:
	@packaging/deb/build.sh $(if $(VERSION),--version $(VERSION)) $(if $(COMMIT),--commit $(COMMIT)) \
		$(if $(LINTIAN),--lintian)

clean:
	rm -rf .venv .venv-* .envs .demo build dist *.egg-info .coverage
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

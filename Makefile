# Everything below needs Python 3.11 or newer, make, and a package index that pip reaches. No Docker, Java or PostgreSQL.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run demo test proof bench chaos chaos-sabotage operations check migrate openapi dashboards

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv from the lock file (the other commands do it when they need it)

.venv/.ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@echo "making .venv: $$(grep -c '==' requirements-dev.lock) packages"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## Start PostgreSQL, Kafka and the five services; Ctrl-C stops them
	@$(BIN)/superfan up $(ARGS)

demo: setup ## Send made-up fans through the front door of the running system and show what came of them
	@$(BIN)/superfan demo $(ARGS)

test: setup ## Run the tests on a real Kafka and a real PostgreSQL that they start themselves
	@$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/manifests $(ARGS)

proof: setup ## Compare all real data with their answers, shuffled and with kills; ARGS="--events DIR --expected DIR"
	@$(BIN)/python -m tests.proof $(ARGS)

bench: setup ## Measure the performance budget beside its limits; ARGS="--write" keeps it in docs/performance.md
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: setup ## Break a running system in every way and check that nothing is lost or doubled; ARGS="--only F1,F6 --write"
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-sabotage: setup ## Break each promise on purpose and check that the battery notices; ARGS="--only no-identity"
	@$(BIN)/python -m tests.chaos.sabotage $(ARGS)

operations: setup ## Scale, restart, upgrade and reconfigure a running system under load; ARGS="--only upgrade --write"
	@$(BIN)/python -m tests.operations $(ARGS)

check: setup ## Lint, types, import contracts, generated documents up to date, what is deployed against the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m libs.common.events docs --check docs/events.md
	$(BIN)/python -m libs.cli.openapi --check
	$(BIN)/python -m pytest -q tests/manifests
	$(BIN)/python -m pip check

migrate: setup ## Bring the databases of the running system up to date
	@$(BIN)/superfan migrate $(ARGS)

openapi: setup ## Write the generated documents: docs/openapi/*.json, docs/events.md
	$(BIN)/python -m libs.cli.openapi
	$(BIN)/python -m libs.common.events docs > docs/events.md

dashboards: setup ## Write the Grafana dashboards: deploy/k8s/components/monitoring/dashboards/*.json
	$(BIN)/python deploy/k8s/components/monitoring/dashboards/generate.py

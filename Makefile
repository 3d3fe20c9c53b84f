# The commands of a contributor. CONTRIBUTING.md explains them.
.PHONY: test test-all lint docs

WORKERS ?= 4

test:  ## Run the tests that take less than three minutes together.
	pytest -n $(WORKERS) --dist worksteal

test-all:  ## Run every test. Some need PostgreSQL, cron and systemd.
	pytest -n $(WORKERS) --dist worksteal -m ""

lint:  ## Check style, types, layers and declared dependencies.
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	deptry .
	python -m docs.generate_reference --check

docs:  ## Write the generated parts of the documentation.
	python -m docs.generate_reference

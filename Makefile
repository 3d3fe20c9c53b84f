# The commands of a contributor. CONTRIBUTING.md explains them.
.PHONY: test test-all lint docs

test:  ## Run the tests that take less than three minutes together.
	pytest -n 3 --dist worksteal

test-all:  ## Run every test. Some need PostgreSQL, cron, systemd and Chromium.
	pytest -n 6 --dist worksteal -m ""

lint:  ## Check style, types, layers and declared dependencies.
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	deptry .
	python -m docs.generate_reference --check

docs:  ## Write the generated parts of the documentation.
	python -m docs.generate_reference

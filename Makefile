# make demo       from raw text to a judged model, in a quarter of an hour
# make test       style, types and tests
# make test-all   these, and the tests beside TensorFlow and llama.cpp, which take minutes to install
# make docs       the documentation as a site, in build/site; its pages on principles compute what they state
# All set up .venv first if it is not there or is out of date; a second call starts at once.

PYTHON ?= python3
# Tests run beside each other, one process a core.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := .venv/.ready
EXTRAS := .venv/.extras
DOCS := .venv/.docs

.PHONY: demo test test-all docs check setup extras clean

demo: setup
	$(BIN)/lucidlm demo $(ARGS)

test: check
	$(PYTEST) -m "not tensorflow and not llama_cpp and not fp8" $(ARGS)

test-all: test extras
	$(PYTEST) -m "tensorflow or llama_cpp or fp8" $(ARGS)

docs: $(DOCS)
	$(BIN)/python -m mkdocs build --strict

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: $(READY)

extras: $(EXTRAS)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	touch $(READY)

$(EXTRAS): $(READY)
	$(INSTALL) -e '.[dev,fp8,tensorflow,llama-cpp]'
	touch $(EXTRAS)

$(DOCS): $(READY)
	$(INSTALL) -e '.[docs]'
	touch $(DOCS)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

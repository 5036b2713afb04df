# make demo   from raw text to a judged model, in a quarter of an hour
# make test   style, types and tests
# Both set up .venv first if it is not there or is out of date; a second call starts at once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check setup clean

demo: setup
	$(BIN)/lucidlm demo $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

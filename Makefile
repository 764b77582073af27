# Two commands: `make demo` does the main job on embedded data, `make test` passes the tests. Both set everything up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test test-slow test-flower lint format docs bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed tests/requirements-peers.txt
	$(PIP) -e '.[test,flower]'
	$(PIP) --no-deps -r tests/requirements-peers.txt
	touch $@

demo: $(VENV)/.installed
	rm -rf demo
	$(BIN)/holdfast certify --data digits --clients 100 --k 2 --models 200 --out demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m "not slow" -n 2

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m slow

# A federation of real processes on the loopback interface.
test-flower: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m flower

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m holdfast.aggregation.docs --check
	$(BIN)/python benchmarks/readme.py --check

format: $(VENV)/.installed-test
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: $(VENV)/.installed
	$(BIN)/python -m holdfast.aggregation.docs
	$(BIN)/python benchmarks/readme.py

# Every claim beside its peers, in small; a peer that is not installed is reported as such. Full runs: see each file.
bench: $(VENV)/.installed-test
	for claim in certify_ten_thousand_inputs coordinate_wise_rules residual_reweighting aggregation_rules romoa_step \
		training_rounds certificates_at_scale flower_strategy; do $(BIN)/python benchmarks/$$claim.py --quick || exit 1; done

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache

# README's two commands are `make demo` and `make test`; each makes the environment first.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= out
BIN    := $(VENV)/bin

.PHONY: demo test test-slow check format constraints clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.installed  ## the whole path on demonstrations that it records itself, into out/demo
	$(BIN)/python jobs/collect.py --output $(OUT)/demo/demonstrations --episodes-per-task 4
	$(BIN)/python jobs/preprocess.py --output $(OUT)/demo --text-encoder tiny \
	  --sources "metaworld=openx-lerobot:$(OUT)/demo/demonstrations#window.stride=4&window.hop=8"
	$(BIN)/python jobs/query.py $(OUT)/demo counts
	$(BIN)/python jobs/query.py $(OUT)/demo captions
	$(BIN)/python jobs/stage1.py --preset tiny --data $(OUT)/demo --output $(OUT)/demo/stage1 --codec train \
	  --small-codec.steps 100 --train.steps 20 --train.batch-size 2 --train.micro-batch-size 2
	$(BIN)/python jobs/stage2.py --preset tiny --data $(OUT)/demo --video-model $(OUT)/demo/stage1 \
	  --output $(OUT)/demo/stage2 --train.steps 60
	$(BIN)/python jobs/report.py $(OUT)/demo
	@echo "summary: $(OUT)/demo/summary.json; predicted beside true videos: $(OUT)/demo/stage1/previews"
	@echo "policy: $(OUT)/demo/stage2/policy"

test: $(VENV)/.installed check  ## lint, types, import boundaries, all quick tests
	$(BIN)/python -m pytest -m "not slow" -n 2

test-slow: $(VENV)/.installed  ## kills, simulators, memory
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(VENV)/.installed  ## pins what is installed now
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) $(OUT)

# README's two commands are `make demo` and `make test`; each makes the environment first.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= out
SEED   ?= 0
BIN    := $(VENV)/bin

learn_job = $(BIN)/python jobs/$(1).py --config configs/learn.yaml

.PHONY: demo learn test test-slow chaos docs check format constraints clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --no-deps openpi-client==0.1.2  # asks for numpy<2, and runs with ours
	touch $@

demo: $(VENV)/.installed  ## the whole path on demonstrations that it records itself, into out/demo
	$(BIN)/python jobs/collect.py --output $(OUT)/demo/demonstrations --episodes-per-task 4 --image-size 128
	$(BIN)/python jobs/preprocess.py --output $(OUT)/demo --text-encoder tiny --video.frame-size 128 \
	  --sources "metaworld=openx-lerobot:$(OUT)/demo/demonstrations#window.stride=4&window.hop=8"
	$(BIN)/python jobs/query.py $(OUT)/demo counts
	$(BIN)/python jobs/query.py $(OUT)/demo captions
	$(BIN)/python jobs/stage1.py --preset tiny --data $(OUT)/demo --output $(OUT)/demo/stage1 --codec train \
	  --small-codec.steps 100 --train.steps 20 --train.batch-size 2 --train.micro-batch-size 2
	$(BIN)/python jobs/stage2.py --preset tiny --data $(OUT)/demo --video-model $(OUT)/demo/stage1 \
	  --output $(OUT)/demo/stage2 --train.steps 60
	$(BIN)/python jobs/evaluate.py --policy $(OUT)/demo/stage2 --output $(OUT)/demo/evaluate \
	  --episodes 1 --max-steps 60 --videos 1 --foresee 10
	$(BIN)/python jobs/evaluate.py --policy expert --output $(OUT)/demo/evaluate-expert --episodes 4
	$(BIN)/python jobs/report.py $(OUT)/demo
	@echo "summary: $(OUT)/demo/summary.json; predicted beside true videos: $(OUT)/demo/stage1/previews"
	@echo "policy: $(OUT)/demo/stage2/policy"

learn: $(VENV)/.installed  ## the same path with settings that make a robot succeed, into out/learn: more than an hour on two cores
	$(call learn_job,collect) --output $(OUT)/learn/demonstrations
	$(call learn_job,preprocess) --output $(OUT)/learn/data \
	  --sources "metaworld=openx-lerobot:$(OUT)/learn/demonstrations#window.stride=4&window.hop=4"
	$(call learn_job,stage1) --data $(OUT)/learn/data --output $(OUT)/learn/stage1
	$(call learn_job,stage2) --data $(OUT)/learn/data --video-model $(OUT)/learn/stage1 --output $(OUT)/learn/stage2
	$(call learn_job,evaluate) --policy $(OUT)/learn/stage2 --output $(OUT)/learn/evaluate --videos 2 --foresee 20
	cp $(OUT)/learn/evaluate/summary.json $(OUT)/learn/summary.json
	$(call learn_job,evaluate) --policy $(OUT)/learn/stage2 --output $(OUT)/learn/evaluate-wrong --instructions next
	$(call learn_job,evaluate) --policy expert --output $(OUT)/learn/evaluate-expert
	$(BIN)/python benchmarks/clone.py --data $(OUT)/learn/data --output $(OUT)/learn/clone
	$(BIN)/python jobs/report.py $(OUT)/learn

test: $(VENV)/.installed check  ## lint, types, import boundaries, all quick tests
	$(BIN)/python -m pytest -m "not slow" -n 2

test-slow: $(VENV)/.installed  ## kills, simulators, memory
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --durations 20

chaos: $(VENV)/.installed  ## kills and ailing stores while each job runs, into out/chaos; 0 only if nothing was lost
	PYTHONPATH=tests $(BIN)/python -m chaos --seed $(SEED) --output $(OUT)/chaos

docs: $(VENV)/.installed  ## the pages of docs/ and the API as a site, into out/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs $(OUT)/docs

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(VENV)/.installed  ## pins what is installed now, as far as it can be installed together
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//; /^openpi-client==/d' > constraints.txt

clean:
	rm -rf $(VENV) $(OUT)

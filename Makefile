# make search: a fresh machine -> search, derive, short training, report, on real images
# make test:   a fresh machine -> all tests of less than some minutes; test-all: those too
PY := .venv/bin/python
# On two ranks, as on any number: a rank for each of the two architectures of search_fashion's step.
CORES := $(shell nproc)
RANKS := $(shell [ $(CORES) -ge 2 ] && echo 2 || echo 1)
RUN := OMP_NUM_THREADS=$(shell expr $(CORES) / $(RANKS)) .venv/bin/torchrun --standalone --nproc-per-node $(RANKS) -m daas_dist

.PHONY: install search test test-all lint
install: .venv/installed

.venv/installed: pyproject.toml
	@command -v dot >/dev/null && dpkg -s dataset-fashion-mnist >/dev/null 2>&1 || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q dataset-fashion-mnist graphviz; }
	python3 -m venv .venv
	$(PY) -m pip install -q --no-compile -e '.[dev]'
	touch $@

search: install
	$(RUN) stage=search_fashion run_dir=runs/search
	$(RUN) stage=train_fashion run_dir=runs/train train.result=runs/search/result.json
	.venv/bin/daas report runs/search runs/train

# A worker more than cores: many tests wait, for a cluster or for a peer.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(shell expr $(CORES) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m "not long" tests

test-all: install
	$(PYTEST) tests

lint: install
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright

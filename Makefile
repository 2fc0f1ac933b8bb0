# `make demo` and `make test` set up everything they need: Python 3.11 or newer, make, and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
DEMO_IMAGES ?= 320
DEMO_NEW ?= 48
DEMO_EPOCHS ?= 20

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-cluster test-io test-elsewhere test-faults test-lowest test-native bench bench-quick bench-curve bench-guard lint types format docs man check dist clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(VENV)/.installed ## the virtual environment .venv with the tested versions

$(VENV)/.installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--config-settings editable_mode=strict --editable '.[test,lint]'
	touch $@

demo: install ## synthetic images -> shard -> train; others, never trained on -> infer; in demo/
	rm -rf demo && mkdir demo
	cd demo && $(BIN)/tumorbatch sample data/raw --images $(DEMO_IMAGES)
	@# Another seed gives other heads: these are only predicted.
	cd demo && $(BIN)/tumorbatch sample data/new --images $(DEMO_NEW) --seed 1
	@# The sample holds broken files on purpose: exit code 3 says that they have error rows.
	cd demo && $(BIN)/tumorbatch shard || [ $$? -eq 3 ]
	cd demo && $(BIN)/tumorbatch train --arch cnn1 --epochs $(DEMO_EPOCHS)
	cd demo && $(BIN)/tumorbatch infer data/new out.parquet || [ $$? -eq 3 ]
	cd demo && $(BIN)/tumorbatch show out.parquet --rows 12
	cd demo && $(BIN)/tumorbatch show out.parquet --errors
	@echo
	@echo 'Where everything lies:'
	@echo '  demo/data/raw/                the synthetic images to train on'
	@echo '  demo/data/new/                others, with another seed: the table is about them'
	@echo '  demo/tfrecords/               shards, manifest.parquet (one row a file), dataset.json'
	@echo '  demo/models/cnn1/             weights, model.json, history, metrics, model_card.md'
	@echo '  demo/out.parquet              the predictions; out.parquet.json says what made them'
	@echo
	@echo 'What you can try next, in this folder:'
	@echo '  source .venv/bin/activate && cd demo'
	@echo '  tumorbatch evaluate cnn1      # how good is it, with intervals: results/cnn1/report.html'
	@echo '  tumorbatch explore            # what the images are like: results/explore/explore.html'
	@echo '  tumorbatch infer FOLDER mine.parquet    # images of your own'

test: install ## the test suite, without the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not slow'

test-all: install ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Other processors' code paths, which are on this one too; and a machine that has no time.
AVX512 := X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR
test-elsewhere: install ## the test suite as on other processors, and with both cores busy: four runs
	OPENBLAS_CORETYPE=Haswell $(MAKE) test
	ONEDNN_MAX_CPU_ISA=AVX2 $(MAKE) test
	NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python tests/elsewhere.py $(AVX512))" $(MAKE) test
	$(BIN)/python tests/elsewhere.py --busy 2 $(MAKE) test

# An interrupted sweep continues where it was, on the same commit: see tests/faults/sweep.py.
test-faults: install ## each file-system call of each command fails or is the last: two hours
	$(BIN)/python -m tests.faults.sweep build/faults.jsonl $(if $(JOBS),--jobs $(JOBS))

# kubernetes-validate has the schemas that Kubernetes publishes; it is needed here only.
# Servers of object stores have their own environment: nothing of them is imported.
SERVERS := $(VENV)-servers
$(SERVERS)/.installed: tests/stores/requirements.txt
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

test-cluster: install $(SERVERS)/.installed ## a real Slurm of two nodes, which apt-get installs, two Ray nodes, and three S3 servers (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt kubernetes-validate==1.37.0 \
		|| echo "kubernetes-validate cannot be installed here: the test of the schema is skipped."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ray \
		|| echo "ray cannot be installed here: its tests are skipped."
	$(BIN)/python -m pytest -m cluster tests/cluster $(if $(SHORT),-k publishes)
	$(BIN)/python -m pytest tests/cli/test_cluster.py
	TUMORBATCH_SERVERS=$(abspath $(SERVERS))/bin $(BIN)/python -m pytest -m cluster tests/stores \
		$(if $(SHORT),-k 'rclone and folder')

# tensorflow-io needs an older TensorFlow, which has its own environment.
IO := $(VENV)-io
$(IO)/.installed: setup.cfg constraints-io.txt
	$(PYTHON) -m venv $(IO)
	$(abspath $(IO))/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-io.txt --config-settings editable_mode=strict --editable '.[io]' pytest
	touch $@

test-io: $(IO)/.installed $(SERVERS)/.installed ## training straight from S3, with tensorflow-io
	TUMORBATCH_SERVERS=$(abspath $(SERVERS))/bin $(abspath $(IO))/bin/python -m pytest -m io tests/stores

test-lowest: $(VENV)-lowest/.installed ## the test suite on the lowest versions that setup.cfg allows
	$(abspath $(VENV))-lowest/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not slow'

$(VENV)-lowest/.installed: setup.cfg constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(abspath $(VENV))-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-lowest.txt --config-settings editable_mode=strict --editable '.[test]'
	touch $@

FUZZ_IMAGES ?= 20000
test-native: install ## the library in C: 20,000 images beside OpenCV, then random ones under ASan and UBSan
	$(BIN)/python -m pytest -n auto tests/foundations/test_native.py
	mkdir -p build/fuzz
	$(CC) -g -O1 -Wall -Wextra -Werror -std=gnu11 -ffp-contract=off -fsanitize=address,undefined \
		-fno-sanitize-recover=all tests/native/fuzz.c -lm -o build/fuzz/fuzz
	build/fuzz/fuzz $(FUZZ_IMAGES)

# The peers' packages have their own environment. Each is installed by itself: one that cannot be had
# leaves out its own peer alone.
PEERS := $(VENV)-peers
$(PEERS)/.installed: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	grep '^[a-z]' benchmarks/peers/requirements.txt | while read -r package; do \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
			--constraint constraints.txt "$$package" \
		|| echo "$$package cannot be installed here: its peer will be skipped."; done
	touch $@

RUNS ?= 5
bench: install $(PEERS)/.installed ## everything beside its peers: make bench DATA=folder (an hour or more; a quiet machine)
	$(BIN)/python benchmarks/bench.py $(if $(DATA),'$(DATA)') --rounds $(RUNS)

bench-quick: install $(PEERS)/.installed ## the same on a sample, in less than five minutes
	$(BIN)/python benchmarks/bench.py $(if $(DATA),'$(DATA)') --quick --rounds $(RUNS)

bench-curve: install ## time an image and memory from 1,000 to 100,000 files: make bench-curve DATA=folder
	$(BIN)/python benchmarks/bench_curve.py '$(DATA)'

bench-guard: install ## operations of the hot paths against stored bounds (needs valgrind, no quiet machine)
	$(BIN)/python benchmarks/guard.py

lint: install ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## static types
	@# The strict editable install lists its files: made anew, it knows those that were added.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=strict --editable .
	@# From another folder: in this one mypy would take tumorbatch/ for the whole package.
	cd $(VENV) && $(BIN)/mypy --config-file $(CURDIR)/setup.cfg -p tumorbatch

format: install ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

man: install ## manual pages of all commands, in build/man/
	$(BIN)/python docs/cli_reference.py build/man/

docs: install ## write docs/cli.md anew from --help
	$(BIN)/python docs/cli_reference.py docs/cli.md

check: lint types test ## all of what a change must pass

dist: install ## dist/*.tar.gz (source) and dist/*.whl (for this kind of machine)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean: ## remove the environment, the demo, and caches
	rm -rf $(VENV) $(VENV)-lowest $(PEERS) $(SERVERS) $(IO) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

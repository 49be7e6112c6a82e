# make setup demo test check verify bench bench-capture bench-lab study-lstm soak broker chaos
PYTHON ?= python3
BIN := .venv/bin
TRACE ?=
KITSUNE_PY ?=

N ?= 3
JOBS ?= 2
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check verify bench bench-capture bench-lab study-lstm soak broker chaos
.SILENT:
.DEFAULT_GOAL := demo

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	echo "+ creating .venv and installing wiresonde into it (a minute or two, once)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[probing]'
	touch $@

.venv/.installed-test: .venv/.installed
	echo "+ installing what tests need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[probing,test]'
	touch $@

setup: .venv/.installed

demo: setup
	echo "+ $(BIN)/wiresonde score demo/demo.pcap.zst --config demo/wiresonde.yaml --labels demo/labels.csv --learn 15000 --out out/demo"
	echo "  (the first run compiles the kernels: about a minute)"
	$(BIN)/wiresonde score demo/demo.pcap.zst --config demo/wiresonde.yaml --labels demo/labels.csv --learn 15000 --out out/demo

test: .venv/.installed-test
	echo "+ $(PYTEST)"
	$(PYTEST)
	echo "+ NUMBA_DISABLE_JIT=1 $(PYTEST) -m 'not compiled' tests/unit tests/property"
	NUMBA_DISABLE_JIT=1 HYPOTHESIS_PROFILE=plain $(PYTEST) -q -m 'not compiled' tests/unit tests/property

check: .venv/.installed-test
	echo "+ $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports"
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

verify: check test
	echo "+ what takes longer than a change should: $(N) groups broken at random"
	$(BIN)/python -m tests.support.chaos --seeds $(N) --jobs $(JOBS)

.PHONY: have-trace
have-trace:
	test -n "$(TRACE)" || { echo "make $(MAKECMDGOALS) TRACE=FILE.pcap" >&2; exit 2; }

bench: have-trace .venv/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	echo "+ $(BIN)/python -m benchmarks.bench_offline --trace $(TRACE) --json docs/figures/bench_offline.json"
	$(BIN)/python -m benchmarks.bench_offline --trace "$(TRACE)" --json docs/figures/bench_offline.json $(if $(KITSUNE_PY),--kitsune-py $(KITSUNE_PY)) > /dev/null
	$(BIN)/python -m benchmarks.bench_models --trace $(TRACE) --json docs/figures/bench_models.json > /dev/null
	echo "+ $(BIN)/python -m benchmarks.bench_lstm --trace $(TRACE) --json docs/figures/bench_lstm.json"
	$(BIN)/python -m benchmarks.bench_lstm --trace "$(TRACE)" --json docs/figures/bench_lstm.json > /dev/null
	echo "+ $(BIN)/python -m benchmarks.bench_memory --json docs/figures/bench_memory.json"
	$(BIN)/python -m benchmarks.bench_memory --json docs/figures/bench_memory.json > /dev/null
	echo "+ $(BIN)/python -m benchmarks.bench_kafka --trace $(TRACE) --json docs/figures/bench_kafka.json"
	$(BIN)/python -m benchmarks.bench_kafka --trace "$(TRACE)" --json docs/figures/bench_kafka.json > /dev/null
	$(BIN)/python -m benchmarks.tables

bench-capture: have-trace .venv/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	echo "+ $(BIN)/python -m benchmarks.bench_capture --trace $(TRACE) --json docs/figures/bench_capture.json"
	$(BIN)/python -m benchmarks.bench_capture --trace "$(TRACE)" --json docs/figures/bench_capture.json > /dev/null
	$(BIN)/python -m benchmarks.tables

bench-lab: .venv/.installed-test
	for NAME in link vantage repeat; do \
	  echo "+ $(BIN)/python -m benchmarks.bench_$$NAME --json docs/figures/bench_$$NAME.json"; \
	  $(BIN)/python -m benchmarks.bench_$$NAME --json docs/figures/bench_$$NAME.json > /dev/null || exit 1; \
	done
	$(BIN)/python -m benchmarks.tables

# SIZE=full: makes its traffic in the lab (45 minutes, as root), then trains 155 nets (35 minutes on two cores).
# SIZE=ci: a small one on the committed corpus, three minutes
SIZE ?= full
STUDY := out/study-lstm
.venv/.installed-study: .venv/.installed
	echo "+ installing PyTorch and what figures need (some minutes, several GB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[probing,train,study]'
	touch $@

study-lstm: .venv/.installed-study
	if [ $(SIZE) = full ]; then \
	  echo "+ $(BIN)/wiresonde lab run sqli sqli-faults sqli-sweep sqli-train --seed 2027 … --out $(STUDY)/corpora"; \
	  $(BIN)/wiresonde lab run sqli sqli-faults sqli-sweep --seed 2027 --share 0.5 --headers --out $(STUDY)/corpora && \
	  $(BIN)/wiresonde lab run sqli-train --seed 2027 --share 0.8 --headers --out $(STUDY)/corpora || exit 1; \
	fi
	echo "+ $(BIN)/python -m benchmarks.study_lstm --size $(SIZE) --out $(STUDY)"
	$(BIN)/python -m benchmarks.study_lstm --size $(SIZE) --out $(STUDY) --corpora $(if $(filter full,$(SIZE)),$(STUDY)/corpora,corpora)

soak: have-trace .venv/.installed-test
	echo "+ $(BIN)/python -m benchmarks.soak --trace $(TRACE) --json docs/figures/soak.json"
	$(BIN)/python -m benchmarks.soak --trace "$(TRACE)" --json docs/figures/soak.json > /dev/null
	$(BIN)/python -m benchmarks.tables

broker:
	echo "+ deploy/kafka/broker.sh start"
	deploy/kafka/broker.sh start

chaos: .venv/.installed-test
	echo "+ $(BIN)/python -m tests.support.chaos --seeds $(N) --jobs $(JOBS) --json docs/figures/chaos.json"
	$(BIN)/python -m tests.support.chaos --seeds $(N) --jobs $(JOBS) --json docs/figures/chaos.json
	$(BIN)/python -m benchmarks.tables

# make           format, lint, types and unit tests
# make run       the page, on port 7860, with the bundled model unless MODEL_DIR or MODEL_REPO says otherwise
# make test      everything, in an environment of its own
# make bench     the benchmarks, and their figures in the documents; an hour, 40 GB of disk
# make trust     the tests of reliability in their long form, and their table in docs/trust.md
# make peers     four of these tests beside openvino_genai and the notebook's way, and their table; ten minutes
# make soak      hours of visitors: make soak HOURS=8 SEED=7
# make examples  the pictures of examples/, drawn anew
# make pictures  the screenshots of the README, taken by the browser tests
# make fuzz      twenty thousand hostile files, chosen by FUZZ_SEED, and what became of them
# make alone     each test without those that ran before it: every function in a process of its own; an hour
# make audit     what the Space is made of (build/sbom.json), and its known vulnerabilities where their database can be reached
# make mutants   how many changes of the engine's books, of messages and of limits the tests notice; an hour

SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := -m pip install --quiet --disable-pip-version-check
RUN := .venv/bin/python
DEV := .venv-dev/bin/python
UNIT := tests --ignore=tests/bench --ignore=tests/browser --ignore=tests/conversion --ignore=tests/demo --ignore=tests/reliability --ignore=tests/test_app.py --ignore=tests/test_api_docs.py $(foreach part,ask chat health server,--ignore=tests/ui/test_$(part).py)

.PHONY: quick run test test-conversion test-rest lint format bench trust peers soak examples pictures fuzz alone audit mutants clean

quick: format lint
	$(DEV) -m pytest -q $(UNIT)

run: .venv/installed
	$(RUN) app.py

# Two processes side by side, a core each; then, alone, the tests that measure how long others wait.
test: lint .venv-dev/browser
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=2 --output-sync=target test-conversion test-rest
	$(DEV) -m pytest tests/browser tests/reliability

test-conversion:
	$(DEV) -m pytest tests/conversion tests/bench

test-rest:
	$(DEV) -m pytest --cov tests --ignore=tests/bench --ignore=tests/browser --ignore=tests/conversion --ignore=tests/reliability

lint: .venv-dev/installed
	$(DEV) -m ruff format --check .
	$(DEV) -m ruff check .
	$(DEV) -m mypy

format: .venv-dev/installed
	$(DEV) -m ruff format --quiet .
	$(DEV) -m ruff check --quiet --fix-only .

bench: .venv/installed .venv-dev/installed
	$(RUN) -m bench.startup --write
	$(DEV) demo/evaluate.py demo/model/int4 --source demo/model/checkpoint | tail -n 1 > bench/results/accuracy.json
	$(DEV) -m bench.engine --full-size --layers 4 --write
	$(DEV) -m bench.full_size bench/built/full-size --write
	$(DEV) -m bench.figures

trust: .venv-dev/browser
	rm -f bench/results/reliability.jsonl
	CHATS=1000 CONVERSATIONS=200 FUZZ=6000 VISITORS=3000 RELIABILITY_LINES=bench/results/reliability.jsonl $(DEV) -m pytest -q -p no:randomly tests/reliability tests/properties/test_scheduler.py tests/browser/test_stop.py tests/browser/test_page.py::test_an_answer_runs_no_script_and_fetches_nothing_from_elsewhere
	$(DEV) -m bench.trust

peers: .venv-dev/installed
	rm -rf build/demo-fp32
	$(DEV) convert.py demo/model/checkpoint --output build/demo-fp32 --weight-format fp32
	$(DEV) -m tests.reliability.side_by_side build/demo-fp32
	$(DEV) -m bench.trust

soak: .venv-dev/installed
	$(DEV) -m tests.reliability.soak $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED))
	$(DEV) -m bench.trust

examples: .venv-dev/installed
	$(DEV) -m demo.examples

pictures: .venv-dev/browser
	SCREENSHOTS=build/screenshots $(DEV) -m pytest -q tests/browser/test_controls.py
	cp build/screenshots/price.png build/screenshots/light.png docs/

fuzz: export FUZZ_FILES ?= 20000
fuzz: export FUZZ_SEED := $(or $(FUZZ_SEED),$(shell date +%s))
fuzz: .venv-dev/installed
	@echo "FUZZ_SEED=$(FUZZ_SEED)"
	$(DEV) -m pytest -q -s tests/reliability/test_files.py | tee /dev/stderr | grep -o '{"R1.*' > bench/results/hostile_files.jsonl

alone: .venv-dev/browser
	OMP_NUM_THREADS=1 $(DEV) -m tests.alone --at-once 2 tests --ignore=tests/browser --ignore=tests/reliability
	$(DEV) -m tests.alone tests/browser tests/reliability

audit: .venv/installed .venv-dev/installed
	$(DEV) -m bench.audit

mutants: .venv-dev/installed
	$(DEV) -m mutmut run
	$(DEV) -m bench.mutants
	$(DEV) -m bench.trust

clean:
	rm -rf mutants .venv .venv-dev .mypy_cache .pytest_cache .ruff_cache

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(RUN) $(PIP) -r requirements.txt
	touch $@

.venv-dev/installed: requirements.txt requirements-convert.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-dev
	$(DEV) $(PIP) -r requirements-dev.txt
	touch $@

# The browser tests drive Debian's Chromium; the snippets of docs/api.md run in its shell and in Node.
.venv-dev/browser: .venv-dev/installed
	command -v chromium >/dev/null && command -v curl >/dev/null && command -v npm >/dev/null || { SUDO=$$(command -v sudo || true); $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends chromium curl fonts-noto-cjk $$(command -v npm >/dev/null || echo nodejs npm); }
	npm install --silent --no-save --no-package-lock --prefix .venv-dev @gradio/client@2.7.0
	touch $@

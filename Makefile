# Two commands need nothing but Python 3.11+: `make demo` and `make test`. The first one makes .venv, which is all that
# is ever installed; after that neither needs a network. Paths are relative, so the checkout may live anywhere.

PYTHON ?=
ARGS ?=
APP ?= examples.orders.app:app
SEEDS ?= 10000
FIRST_SEED ?= 1

PY := .venv/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed
RETRIES := $(if $(CI),5,1)
MINISTACK_VERSION := 1.5.33
SAM_VERSION := 1.170.0
SAM := .venv-sam/.sam-$(SAM_VERSION)
MINISTACK := .venv-ministack/.ministack-$(MINISTACK_VERSION)
LOCALSTACK_VERSION := 4.14.0
LOCALSTACK_PYTHON ?=
LOCALSTACK := .venv-localstack/.localstack-$(LOCALSTACK_VERSION)
DURABLE_SDK_VERSION := 3.0.0
DURABLE_TESTING_VERSION := 1.4.0
DURABLE := .venv-durable/.durable-$(DURABLE_SDK_VERSION)-$(DURABLE_TESTING_VERSION)
SOURCES := sdk/python state_machine infra functions tests examples $(patsubst %/__main__.py,%,$(wildcard bench/__main__.py))

.PHONY: help demo report package lock docs stand-in test check lint types imports template ministack sam localstack durable kills bench bench-cost simulate mutants clean
.SUFFIXES:
.NOTPARALLEL:

help: ## List what can be made (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  ARGS=... is handed on: make demo ARGS='--limit 300', make test ARGS='-k orders'"
	@echo "  PYTHON=... chooses the Python that .venv is made with (3.11 or newer; found by itself otherwise)"

demo: $(RUNTIME) ## Run 6,919 real orders as durable workflows, and check the books to the cent
	@$(PY) -m examples.orders.demo $(ARGS)

report: $(RUNTIME) ## Make a page about penguins with a small graph of steps
	@$(PY) -m examples.report.demo $(ARGS)

package: $(DEV) ## Make build/lambda, what Lambda unpacks, for the runtime that template.yaml names
	@$(PY) -m detent.cli package --app $(APP) --out build/lambda $(ARGS)

lock: $(DEV) ## Lock what build/lambda depends on, in requirements.lock
	@$(PY) -m detent.cli package --lock $(ARGS)

# What `sam build` calls. The other functions take build/lambda as it is.
build-Worker: package
	@cp -Rp build/lambda/. "$(ARTIFACTS_DIR)"

# Three at once on any machine: many tests wait for real time. All of them must collect the same names, so one hash seed.
# What shares an expensive deployment stays in one of the three (tests/conftest.py).
test: $(DEV) ## Run the whole suite
	@PYTHONHASHSEED=0 $(PY) -m pytest -q -n 3 $(ARGS)

check: lint types imports template ministack sam test ## Everything that must hold before a change goes in

docs: $(DEV) ## Write what docs/python.md says of the code
	@$(PY) -m tests.support.python_page

lint: $(DEV) ## Style and formatting
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo "run: $(PY) -m ruff format ."; exit 1; }

types: $(DEV) ## Types, by mypy and by pyright
	@$(PY) -m mypy --strict --no-error-summary $(SOURCES)
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright --warnings

imports: $(DEV) ## Who may import whom
	@.venv/bin/lint-imports --no-logo > .venv/imports.txt || { cat .venv/imports.txt; exit 1; }

template: $(DEV) ## The CloudFormation template
	@.venv/bin/cfn-lint template.yaml

ministack: $(DEV) ## The AWS stand-in that tests talk to over the wire, in a virtual environment of its own
	@$(MAKE) --no-print-directory $(MINISTACK) || { \
		echo "ministack could not be installed: the tests that need a server are skipped (and fail where CI is set)"; \
		exit $(if $(filter ministack,$(MAKECMDGOALS)),1,0); }

stand-in: ## Start a stand-in for AWS on this machine: eval "$$(make --silent stand-in)" points commands to it
	@$(MAKE) --no-print-directory $(RUNTIME) $(MINISTACK) >&2
	@BIND_HOST=127.0.0.1 GATEWAY_PORT=4566 LAMBDA_EXECUTOR=local \
		nohup .venv-ministack/bin/ministack > .venv-ministack/ministack.log 2>&1 & \
		$(PY) -c "$$STAND_IN_ANSWERS" || { echo "no answer: see .venv-ministack/ministack.log" >&2; exit 1; }; \
		echo "export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_DEFAULT_REGION=us-east-1" \
		"AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test STAND_IN=$$!"

define STAND_IN_ANSWERS
import socket, sys, time
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", 4566), 1).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.1)
sys.exit(1)
endef
export STAND_IN_ANSWERS

sam: $(DEV) ## The SAM CLI, in a virtual environment of its own
	@$(MAKE) --no-print-directory $(SAM) || { \
		echo "the SAM CLI could not be installed: the tests that need it are skipped (and fail where CI is set)"; \
		exit $(if $(filter sam,$(MAKECMDGOALS)),1,0); }

localstack: $(DEV) $(LOCALSTACK) ## LocalStack without docker, for DETENT_TEST_STACK=localstack; needs Python 3.13

kills: ministack ## Kill workers at random for minutes, on sqlite and on ministack, and count what was lost
	@$(PY) -m tests.kills --backend sqlite $(ARGS)
	@$(PY) -m tests.kills --backend ministack $(ARGS)

bench: $(DEV) ## Measure throughput, latency, requests and price per step
	@$(PY) -m bench $(ARGS)

bench-cost: $(DEV) durable ## Count what the canonical workloads ask of AWS, and price them beside other engines
	@$(PY) -m bench.cost $(ARGS)

durable: $(DEV) ## AWS's local runner of Lambda durable functions, in a virtual environment of its own
	@$(MAKE) --no-print-directory $(DURABLE) || { \
		echo "AWS's local runner could not be installed: durable functions are not counted"; \
		exit $(if $(filter durable,$(MAKECMDGOALS)),1,0); }

simulate: $(DEV) ## Run random workflows under random faults: SEEDS of them, from FIRST_SEED on
	@$(PY) -m tests.simulation --first $(FIRST_SEED) --seeds $(SEEDS)

mutants: $(DEV) ## Break each rule of the engine, and see that a test notices
	@$(PY) -m tests.simulation.mutants

clean: ## Remove what was installed, built and cached (databases in .detent stay)
	@rm -rf .venv .venv-ministack .venv-sam .venv-localstack .venv-durable .aws-sam build .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what they need -----------------------------------------------------------------------------------------------

$(RUNTIME): pyproject.toml
	@$(call venv)
	@echo "installing detent into .venv"
	@$(PIP) install --editable .
	@touch $@

$(DEV): pyproject.toml
	@$(call venv)
	@echo "installing detent and what its tests need into .venv"
	@$(PIP) install --editable '.[dev]'
	@touch $(RUNTIME) $@

# ministack pins its own botocore, and runs functions with its own Python: it needs the translator and a boto3 beside it.
$(MINISTACK):
	@echo "installing ministack into .venv-ministack"
	@$(PY) -m venv .venv-ministack
	@.venv-ministack/bin/python -m pip --quiet --disable-pip-version-check --retries $(RETRIES) --timeout 10 install \
		ministack==$(MINISTACK_VERSION) boto3==1.43.106 aws-sam-translator==1.115.0
	@touch $@

$(SAM):
	@echo "installing the SAM CLI into .venv-sam"
	@$(PY) -m venv .venv-sam
	@.venv-sam/bin/python -m pip --quiet --disable-pip-version-check --retries $(RETRIES) --timeout 10 install \
		aws-sam-cli==$(SAM_VERSION)
	@touch $@

# Its releases name few upper bounds. What came out later than this one breaks it, and so does another Python: its code is
# newer than 3.11, and functions run with the Python it runs with, which is to be the template's. The last line but one is
# AWS's runtime client, in a folder of its own for functions alone.
$(LOCALSTACK):
	@echo "installing LocalStack into .venv-localstack (330 MB)"
	@for python in $(LOCALSTACK_PYTHON) python3.13 "$$HOME"/.pyenv/versions/3.13.*/bin/python3.13; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' > /dev/null 2>&1; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "LocalStack needs Python 3.13. Install it, or name it: make LOCALSTACK_PYTHON=/path/to/python3.13 localstack" >&2; \
		exit 1; \
	fi; \
	.venv/bin/uv venv --quiet --clear --no-python-downloads --python "$$python" .venv-localstack
	@.venv/bin/uv pip install --quiet --python .venv-localstack/bin/python --exclude-newer 2026-03-01T00:00:00Z \
		'localstack-core[runtime]==$(LOCALSTACK_VERSION)'
	@.venv/bin/uv pip install --quiet --python .venv-localstack/bin/python --target .venv-localstack/runtime \
		'awslambdaric>=4.2,<5'
	@touch $@

$(DURABLE):
	@echo "installing AWS's runner of durable functions into .venv-durable"
	@$(PY) -m venv .venv-durable
	@.venv-durable/bin/python -m pip --quiet --disable-pip-version-check --retries $(RETRIES) --timeout 10 install \
		aws-durable-execution-sdk-python==$(DURABLE_SDK_VERSION) \
		aws-durable-execution-sdk-python-testing==$(DURABLE_TESTING_VERSION)
	@touch $@

# Makes .venv unless it is there and works; says what to do if there is no Python that will do.
define venv
if ! $(PY) -c 'import pip' 2> /dev/null; then \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "detent needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not one,found none).$(\
			) Install one, or name it: make PYTHON=/path/to/python demo" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv .venv; \
fi
endef

# Needs python3 (3.10 or newer), make and a package registry; everything else is installed into .venv* and .nox.
#
#   make test       lint, types, and the tests in every environment of the matrix
#   make quick      the tests in one environment:      make quick ENV=mcp-1.30 ARGS="-k span_name"
#   make canary     that nothing leaks: marked values over every transport of the SDK, FastMCP, the gateway and the
#                   plugin managers, sought in what is exported; a table
#                   in some environments:              make canary ARGS="mcp-2.3 fastmcp-4.2 gateway-1.0.7 cpex-0.1.4"
#   make demo       one trace of a client and two servers, in the terminal
#   make demo-gateway  the traces of calls through a ContextForge gateway; needs a Python from 3.11 to 3.13, if it is not
#                   found:                             make demo-gateway GATEWAY_PYTHON=/path/to/python3.12
#   make bench      the benchmarks, as a table:        make bench ARGS=...
#   make bench-gateway  what is added to a tool call through a ContextForge gateway
#   make changelog  the unreleased changes; with VERSION=1.2.3, write them into CHANGELOG.md
#   make clean      remove what the others made

PYTHON ?= python3
GATEWAY_PYTHON ?= >=3.11,<3.14
ENV ?= mcp-2.3
ARGS ?=

VENV := .venv
DEMO := .venv-demo
DEMO_GATEWAY := .venv-demo-gateway
BENCH := .venv-bench

UV := $(VENV)/bin/uv
NOX := $(VENV)/bin/nox
SOURCES := pyproject.toml $(wildcard README.md) $(shell find src -name '*.py')

export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
# uv does not read pip's settings: where pip is told to use another index, so is uv.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.DELETE_ON_ERROR:
.PHONY: test quick canary demo demo-gateway bench bench-gateway changelog clean

test: $(NOX)
	$(NOX) $(if $(ARGS),-- $(ARGS))

quick: $(NOX)
	$(NOX) --error-on-missing-interpreters --session "tests($(ENV))" -- $(ARGS)

canary: $(NOX)
	$(NOX) --session canary $(if $(ARGS),-- $(ARGS))

demo: $(DEMO)/.installed
	$(DEMO)/bin/python examples/demo/run.py $(ARGS)

demo-gateway: $(DEMO_GATEWAY)/.installed
	$(DEMO_GATEWAY)/bin/python examples/gateway/run.py $(ARGS)

bench: $(BENCH)-1.30/.installed $(BENCH)-2.3/.installed
	$(BENCH)-2.3/bin/python benchmarks/run.py $(BENCH)-1.30/bin/python $(BENCH)-2.3/bin/python $(ARGS)

bench-gateway: $(DEMO_GATEWAY)/.installed
	$(DEMO_GATEWAY)/bin/python benchmarks/gateway.py $(ARGS)

changelog: $(NOX)
ifdef VERSION
	$(VENV)/bin/towncrier build --yes --version $(VERSION)
else
	$(VENV)/bin/towncrier build --draft --version Unreleased
endif

clean:
	rm -rf $(VENV) $(DEMO) $(DEMO_GATEWAY) $(BENCH)-1.30 $(BENCH)-2.3 .nox .pytest_cache .ruff_cache .hypothesis build dist htmlcov
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv, nox and towncrier, with nothing but the standard library and pip. Touched last: an interrupted installation is redone.
$(NOX): constraints/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints/tools.txt
	@touch $(NOX)

$(DEMO)/.installed: constraints/demo.txt $(SOURCES) | $(NOX)
	$(UV) venv --quiet --allow-existing --python $(VENV)/bin/python $(DEMO)
	$(UV) pip install --quiet --python $(DEMO)/bin/python --constraint $< '.[auto,cli]' --group demo
	@touch $@

$(DEMO_GATEWAY)/.installed: constraints/demo-gateway.txt $(SOURCES) | $(NOX)
	@$(UV) python find --quiet --no-project '$(GATEWAY_PYTHON)' >/dev/null 2>&1 || { echo "the gateway needs Python 3.11, 3.12 or 3.13, and none was found: make demo-gateway GATEWAY_PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(UV) venv --quiet --allow-existing --no-project --python '$(GATEWAY_PYTHON)' $(DEMO_GATEWAY)
	$(UV) pip install --quiet --python $(DEMO_GATEWAY)/bin/python --constraint $< '.[auto,cli]' --group demo-gateway
	@touch $@

$(BENCH)-%/.installed: constraints/bench-%.txt $(SOURCES) | $(NOX)
	$(UV) venv --quiet --allow-existing --python $(VENV)/bin/python $(BENCH)-$*
	$(UV) pip install --quiet --python $(BENCH)-$*/bin/python --constraint $< . --group bench
	@touch $@

# make demo: the whole comparison on this machine's CPU.  make test: lint, types, import contract, tests.
# make docs: the site, into tmp/site.
# make bench: what is said of our speed, measured here; the machine otherwise idle.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: setup vllm demo test bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0])'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[transformers,operators,sweep,dev]'
	touch $@

# vLLM's pins are not ours, so it gets an environment of its own.
vllm: $(VENV)-vllm/.installed

$(VENV)-vllm/.installed: pyproject.toml scripts/install_vllm.sh
	test -x $(VENV)-vllm/bin/python || $(PYTHON) -m venv $(VENV)-vllm
	bash scripts/install_vllm.sh $(VENV)-vllm/bin/python
	touch $@

demo: setup
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash scripts/demo.sh

test: setup
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash scripts/test.sh

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

bench: setup
	$(VENV)/bin/python -m benchmarks

clean:
	rm -rf $(VENV) $(VENV)-vllm tmp

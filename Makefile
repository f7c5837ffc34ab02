# make demo           train, evaluate and draw a LESA Mask R-CNN on generated images (CPU or GPU)
# make explore        open a page on the demo's detector: what it finds, and where it looks
# make test           ruff, pyrefly and pytest
# make docs           build the documentation: docs/_build/html/index.html
# make setup          only install
# make clean          remove what these have installed
#
# PYTHON=python3.12   the Python to install for; without it, python3
# STACK=onedl         OneDL's mmcv, mmengine and mmdet, in .venv-onedl; without it, OpenMMLab's, in .venv
# VENV=/path          use that environment as it is
# WORKERS=4           processes that run the tests; without it, 3: on two cores, one may wait

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.PHONY: demo explore test docs setup setup-tests setup-docs clean

WORKERS ?= 3

ifeq ($(VENV),)
STACK := $(or $(STACK),openmmlab)
ENV := .venv$(if $(filter onedl,$(STACK)),-onedl)
setup:
	@tools/environment.sh make $(ENV) "$(STACK)" "$(PYTHON)"
setup-tests: setup
	@tools/environment.sh tests $(ENV) "$(STACK)"
setup-docs: setup
	@tools/environment.sh docs $(ENV)
else
ENV := $(VENV)
setup:
	@[[ -x "$(ENV)/bin/python" ]] || { echo 'error: VENV=$(VENV) has no bin/python' >&2; exit 2; }
	@"$(ENV)/bin/python" tools/check_env.py $(if $(filter test,$(MAKECMDGOALS)),--tests)
setup-tests setup-docs: setup
endif

demo: setup
	"$(ENV)/bin/python" tools/demo.py

explore: setup
	"$(ENV)/bin/python" tools/explore.py

test: setup setup-tests
	"$(ENV)/bin/python" -m ruff check .
	"$(ENV)/bin/python" -m ruff format --check .
	"$(ENV)/bin/python" -m pyrefly check --python-interpreter-path "$(ENV)/bin/python"
	OMP_NUM_THREADS=1 "$(ENV)/bin/python" -m pytest --durations 10 \
	  -n $(WORKERS) --dist loadfile --no-loadscope-reorder

docs: setup setup-docs
	"$(ENV)/bin/python" -m sphinx -W --keep-going -E -b html docs docs/_build/html

clean:
	@tools/environment.sh remove .venv .venv-onedl
	rm -rf build docs/_build *.egg-info

# make demo    train, evaluate and draw a LESA Mask R-CNN on generated images (CPU or GPU)
# make explore open a page on the demo's detector: what it finds, and where it looks
# make test    ruff and pytest
# make docs    build the documentation: docs/_build/html/index.html
# make setup   only install
# VENV=/path   use that environment as it is instead of making .venv

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

.DEFAULT_GOAL := demo
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo explore test docs setup clean

ifeq ($(origin VENV),file)
PRETRAIN := $(VENV)/pretrain/.ready
DOCS := $(VENV)/.docs
setup: $(VENV)/.ready
else
setup:
	@$(BIN)/python tools/check_env.py
endif

demo: setup
	$(BIN)/python tools/demo.py

explore: setup
	@test -f work_dirs/demo/last_checkpoint || { echo 'error: there is no demo yet: make demo'; exit 1; }
	$(BIN)/python tools/explore.py work_dirs/demo/*.py $$(cat work_dirs/demo/last_checkpoint) \
	  data/shapes/val

docs: setup $(DOCS)
	rm -rf docs/_build docs/api
	$(BIN)/python -m sphinx -W --keep-going -E -b html docs docs/_build/html

test: setup $(PRETRAIN)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

$(VENV)/.ready: requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $$(grep '^torch==' requirements.txt) ninja psutil 'setuptools<81' wheel
	tools/build_mmcv.sh $(BIN)/python 2.1.0
	$(PIP) install -r requirements.txt
	@# A machine without a screen may lack libGL, which only OpenCV's windows need.
	$(BIN)/python -c 'import cv2' 2>/dev/null \
	  || $(PIP) install --force-reinstall --no-deps opencv-python-headless==5.0.0.93
	$(PIP) install --no-build-isolation --no-deps -e .
	touch $@

$(VENV)/pretrain/.ready: requirements-pretrain.txt $(VENV)/.ready
	$(PIP) install --no-deps --upgrade --target $(@D) -r $<
	touch $@

$(VENV)/.docs: requirements-docs.txt $(VENV)/.ready
	$(PIP) install -r $<
	touch $@

clean:
	rm -rf $(VENV) build docs/_build docs/api *.egg-info

#!/usr/bin/env bash
# The environments that the Makefile makes and removes. One that somebody else made stays as it is.
#   tools/environment.sh make FOLDER STACK [PYTHON]   a stack, with what demo and tests need
#   tools/environment.sh tests FOLDER STACK           what tests alone need, beside what `make` made
#   tools/environment.sh docs FOLDER                  what builds the documentation, likewise
#   tools/environment.sh remove FOLDER...
set -euo pipefail
cd "$(dirname "$0")/.."

mark=.made-by-make  # written first: what has it may be removed
ready=.ready        # written last: nothing is missing

stop() { echo "error: $*" >&2; exit 2; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_ours() { [[ -e $1/$mark || -e $1/$ready ]]; }

install() { "$folder/bin/python" -m pip --disable-pip-version-check install "$@"; }

# Whether FILE is there and no older than what it was made of: is_current FILE SOURCE...
is_current() {
  local file=$1 source
  for source in "${@:2}"; do [[ -e $file && ! $source -nt $file ]] || return 1; done
}

make() {
  local folder=$1 stack=$2 python=${3:-} version of_folder
  local sources=(requirements/{common,tests,"$stack"}.txt pyproject.toml mmcv_torchvision/pyproject.toml)
  [[ $stack == openmmlab || $stack == onedl ]] || stop "STACK=$stack is neither openmmlab nor onedl"
  if [[ -e $folder ]] && ! is_ours "$folder"; then
    stop "make did not make $folder: VENV=$folder uses it as it is; or remove it, and make makes one"
  fi
  of_folder=$(version_of "$folder/bin/python") || of_folder=
  if [[ $python || ! -e $folder/$ready ]]; then
    version=$(version_of "${python:-python3}") ||
      stop "PYTHON=${python:-python3} is no Python that runs: $("${python:-python3}" -V 2>&1 | sed 's|^.*: line [0-9]*: ||;q')"
    [[ $version =~ ^3\.1[0-3]$ ]] ||
      stop "PYTHON=${python:-python3} is Python $version: 3.10 to 3.13 are needed"
    if [[ -e $folder/$ready && $version != "$of_folder" ]]; then
      stop "$folder has Python $of_folder, and PYTHON=$python is $version: make clean first"
    fi
  fi
  if is_current "$folder/$ready" "${sources[@]}"; then return; fi

  # Interrupted installations go on, unless they are of another Python or too young to have pip.
  if [[ ! -e $folder/$ready ]] && ! { [[ $version == "$of_folder" ]] && install --help >/dev/null 2>&1; }; then
    rm -rf "$folder"
    mkdir "$folder" && touch "$folder/$mark"
    "${python:-python3}" -m venv "$folder" || { rm -rf "$folder"; stop "${python:-python3} has no module venv that works"; }
  fi
  install -r requirements/common.txt -r requirements/tests.txt
  # A machine without a screen may lack libGL, which only OpenCV's windows need.
  "$folder/bin/python" -c 'import cv2' 2>/dev/null ||
    install --force-reinstall --no-deps "$(sed -n 's/^opencv-python==/opencv-python-headless==/p' requirements/common.txt)"
  # What an earlier checkout has compiled for its torch would be taken instead of torchvision's.
  "$folder/bin/python" -m pip uninstall -qy mmcv onedl-mmcv 2>/dev/null
  install --no-cache-dir -r "requirements/$stack.txt"
  install --no-deps -e ./mmcv_torchvision -e .
  touch "$folder/$ready"
}

tests() {
  local folder=$1 sources=(requirements/{"pretrain-$2",pretrain,oldest-triton}.txt)
  if is_current "$folder/.tests" "${sources[@]}"; then return; fi
  install -r "${sources[0]}"
  # Beside the Triton of torch, in a folder of its own.
  install --no-deps --upgrade --target "$folder/oldest-triton" -r "${sources[2]}"
  touch "$folder/.tests"
}

docs() {
  local folder=$1 file=requirements/docs.txt
  if is_current "$folder/.docs" "$file"; then return; fi
  install -r "$file"
  touch "$folder/.docs"
}

remove() {
  local folder
  for folder in "$@"; do
    if is_ours "$folder"; then
      rm -rf "$folder"
    elif [[ -e $folder ]]; then
      echo "$folder was not made by make: it stays"
    fi
  done
}

case ${1:-} in
  make | tests | docs | remove) "$@" ;;
  *) sed -n '2,/^set/s/^# *//p' "$0"; exit 2 ;;
esac

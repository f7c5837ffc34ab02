#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# More machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmdet's script of that name.
set -euo pipefail

# mmdet's own script, but started under this name, so that it runs the train.py beside this file.
script=$(python -c 'from lesa_mmdet.launch import find_tool as find; print(find("dist_train.sh"))')
exec bash -c "$(<"$script")" "$0" "$@"

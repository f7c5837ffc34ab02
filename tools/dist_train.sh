#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# More machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmdet's script of that name.
set -euo pipefail
source "$(dirname "$0")/launcher.sh"
dist 2 "$@"

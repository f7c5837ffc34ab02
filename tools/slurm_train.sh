#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as for mmdet's script of that name.
set -euo pipefail

# mmdet's own script, but it starts the train.py beside this file, from whatever folder.
script=$(python -c 'from lesa_mmdet.launch import find_tool as find; print(find("slurm_train.sh"))')
text=$(<"$script")
exec bash -c "${text/ tools\/train.py/ $(dirname "$0")/train.py}" "$0" "$@"

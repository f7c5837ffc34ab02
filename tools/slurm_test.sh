#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as for mmdet's script of that name.
set -euo pipefail

# mmdet's own script, but it starts the test.py beside this file, from whatever folder.
script=$(python -c 'from lesa_mmdet.launch import find_tool as find; print(find("slurm_test.sh"))')
text=$(<"$script")
exec bash -c "${text/ tools\/test.py/ $(dirname "$0")/test.py}" "$0" "$@"

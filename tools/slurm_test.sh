#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as for mmdet's script of that name.
set -euo pipefail
source "$(dirname "$0")/launcher.sh"
slurm 4 "$@"

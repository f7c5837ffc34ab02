#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as for mmdet's script of that name.
set -euo pipefail
source "$(dirname "$0")/launcher.sh"
need 4 "$@"
need_no_spaces "$0" "$@"

# mmdet's own script, but it starts the train.py beside this file, from whatever folder.
script=$(mmdets_script)
exec bash -f -c "${script/ tools\/train.py/ $(dirname "$0")/train.py}" "$0" "$@"

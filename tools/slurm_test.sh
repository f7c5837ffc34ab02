#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as for mmdet's script of that name.
set -euo pipefail
source "$(dirname "$0")/launcher.sh"
need 4 "$@"
need_no_spaces "$0" "$@"

# mmdet's own script, but it starts the test.py beside this file, from whatever folder.
script=$(mmdets_script)
exec bash -f -c "${script/ tools\/test.py/ $(dirname "$0")/test.py}" "$0" "$@"

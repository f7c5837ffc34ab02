#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# More machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmdet's script of that name.
set -euo pipefail
source "$(dirname "$0")/launcher.sh"
need 3 "$@"
[[ $3 =~ ^[1-9][0-9]*$ ]] || refuse "GPUS is '$3', and has to be a number from 1"

# mmdet's own script, but started under this name, so that it runs the test.py beside this file. It
# does not quote its arguments: with neither IFS nor patterns (-f), each stays whole all the same.
script=$(mmdets_script)
exec bash -f -c "IFS=; $script" "$0" "$@"

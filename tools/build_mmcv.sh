#!/usr/bin/env bash
# Install mmcv with its compiled operators: built from source once (minutes), from pip's cache later.
# Usage: tools/build_mmcv.sh PYTHON VERSION
set -euo pipefail

python=$1
version=$2
log=$(mktemp -t mmcv-build.XXXXXX.log)

echo "mmcv $version: building its operators, unless pip has them cached (log: $log)"
if "$python" -m pip --disable-pip-version-check install -v --no-build-isolation "mmcv==$version" 2>&1 \
  | tee "$log" | awk '
      match($0, /\[[0-9]+\/[0-9]+\] /) { printf "  compiled %s\n", substr($0, RSTART, RLENGTH); fflush() }'
then
  rm -f "$log"
else
  tail -n 40 "$log"
  echo "mmcv $version could not be built: it needs a C++ compiler and Python's headers; all of it: $log"
  exit 1
fi

# Sourced by the launchers beside it, with `set -euo pipefail`: what they have in common.

# The comment at a launcher's head is its usage.
usage() { echo "usage: $(sed -n '2,/^[^#]/s/^# //p' "$0")"; }

refuse() { echo "error: $*" >&2; usage >&2; exit 2; }

# Stop unless there are enough arguments: need NUMBER "$@"
need() {
  if [[ ${2:-} == -h || ${2:-} == --help ]]; then usage; exit; fi
  [[ $# -gt $1 ]] || refuse "$(basename "$0") needs $1 arguments, and got $(($# - 1))"
}

# Text of mmdet's own script of a launcher's name. It lies where lesa_mmdet.engine.launch.find_tool
# looks, too, which would first import all of mmdet, for seconds.
mmdets_script() {
  local find folder script
  find='from importlib.util import find_spec; print(*find_spec("mmdet").submodule_search_locations)'
  # Only the last line is ours: what Python imports on its own may print, too.
  folder=$(python -c "$find" 2>/dev/null | tail -n 1) ||
    { echo 'error: python has no mmdet: is its environment activated?' >&2; exit 1; }
  script=$folder/.mim/tools/$(basename "$0")
  [[ -f $script ]] ||
    { echo "error: mmdet has no $script: install it as a package (pip install mmdet)" >&2; exit 1; }
  cat "$script"
}

# Start mmdet's dist_*.sh of a launcher's name, NUMBER being the argument GPUS: dist NUMBER "$@"
dist() {
  need "$@"
  local number=$1 script
  shift
  [[ ${!number} =~ ^[1-9][0-9]*$ ]] || refuse "GPUS is '${!number}', and has to be a number from 1"
  # Under this name, so that it runs the tool beside this file. It does not quote its arguments: with
  # neither IFS nor patterns (-f), each stays whole all the same.
  script=$(mmdets_script)
  exec bash -f -c "IFS=; $script" "$0" "$@"
}

# Start mmdet's slurm_*.sh of a launcher's name, which needs NUMBER arguments: slurm NUMBER "$@"
slurm() {
  need "$@"
  local argument script tool=${0##*_}
  shift
  for argument in "$0" "$@"; do
    [[ $argument != *[[:space:]]* ]] || refuse "'$argument' has a space, which mmdet's script cannot pass on"
  done
  # It starts the tool beside this file, from whatever folder.
  tool=${tool%.sh}.py
  script=$(mmdets_script)
  exec bash -f -c "${script/ tools\/$tool/ $(dirname "$0")/$tool}" "$0" "$@"
}

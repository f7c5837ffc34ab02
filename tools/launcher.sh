# Sourced by the launchers beside it, with `set -euo pipefail`: what they have in common.

# The comment at a launcher's head is its usage.
usage() { echo "usage: $(sed -n '2,/^[^#]/s/^# //p' "$0")"; }

refuse() { echo "error: $*" >&2; usage >&2; exit 2; }

# Stop unless there are enough arguments: need NUMBER "$@"
need() {
  if [[ ${2:-} == -h || ${2:-} == --help ]]; then usage; exit; fi
  [[ $# -gt $1 ]] || refuse "$(basename "$0") needs $1 arguments, and got $(($# - 1))"
}

# Stop where mmdet's script would take one argument for two: need_no_spaces "$@"
need_no_spaces() {
  local argument
  for argument in "$@"; do
    [[ $argument != *[[:space:]]* ]] || refuse "'$argument' has a space, which mmdet's script cannot pass on"
  done
}

# Text of mmdet's own script of a launcher's name.
mmdets_script() {
  local find path
  find='from lesa_mmdet.engine.launch import find_tool; import sys; print(find_tool(sys.argv[1]))'
  # Only the last line is ours: what Python imports may print, too.
  path=$(PYTHONPATH="$(dirname "$0")/..:${PYTHONPATH:-}" python -c "$find" "$(basename "$0")" | tail -n 1) ||
    { echo 'error: python cannot import lesa_mmdet: is its environment activated?' >&2; exit 1; }
  cat "$path"
}

#!/usr/bin/env bash
# To be sourced: the Python environment and the paths of the toolkit. Installs nothing (run.sh and test/run.sh do).

WENET_OSUM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export WENET_OSUM_ROOT
export PYTHONPATH="$WENET_OSUM_ROOT${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUTF8=1                             # transcripts and labels are UTF-8 whatever the locale
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # one thread a process: two processes use two cores better than two threads do
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"  # its threads do not survive the fork of data workers

# shellcheck source=tools/setup_env.sh
. "$WENET_OSUM_ROOT/tools/setup_env.sh"
if ! environment_is_active && [ -f "$WENET_OSUM_ROOT/.venv/bin/activate" ]; then
  # shellcheck disable=SC1091
  . "$WENET_OSUM_ROOT/.venv/bin/activate"
fi

# The command of an installed package, in a checkout that is none.
if ! command -v wenet_osum > /dev/null; then
  wenet_osum() { python -m wenet_osum "$@"; }
fi

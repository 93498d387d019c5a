#!/usr/bin/env bash
# What a GPU has to tell about the toolkit, in parts that go on where they stopped; gpu_day.py says how.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=path.sh
. "$root/path.sh"
export PYTHONPATH="$root/tools/bench:$PYTHONPATH"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1  # nothing is downloaded
exec python "$root/tools/bench/gpu_day.py" "$@"

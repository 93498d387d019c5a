#!/usr/bin/env bash
# Sets the toolkit up (once) and runs a recipe.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
recipe=toy
help_message="Usage: bash run.sh [--recipe NAME] [--stage N] [--stop_stage M] [options of the recipe]

  --recipe NAME     folder in examples/ (default: toy). Known: $(cd "$root/examples" && echo */ | tr -d /)
  --stage N         first stage: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average,
                    5 decode, 6 score and report
  --stop_stage M    last stage

Everything but --recipe is passed on; bash examples/NAME/run.sh --help lists the options of a recipe.
Python packages go into the active environment, or into .venv when none is active."

passed_on=()
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) echo "$help_message"; exit 0 ;;
    --recipe) recipe=${2:?--recipe needs a name}; shift 2 ;;
    --recipe=*) recipe=${1#*=}; shift ;;
    *) passed_on+=("$1"); shift ;;
  esac
done
if [[ ${passed_on[0]---} != --* ]]; then
  echo "'${passed_on[0]}' is no option; to run a recipe: bash run.sh --recipe ${passed_on[0]}" >&2
  exit 1
fi
if [ ! -f "$root/examples/$recipe/run.sh" ]; then
  echo "unknown recipe '$recipe'; known: $(cd "$root/examples" && echo */ | tr -d /)" >&2
  exit 1
fi

# shellcheck source=path.sh
. "$root/path.sh"
setup_environment "$root" requirements.txt
export RUN_FROM=$PWD  # recipes take paths in their options relative to here
cd "$root/examples/$recipe"
bash run.sh "${passed_on[@]}"

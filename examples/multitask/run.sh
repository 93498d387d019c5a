#!/usr/bin/env bash
# Eight tasks at once: one mixture of what the other recipes prepared, one report. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
data_dir=        # folder with the recipes' work folders, NAME/data/…; empty: examples/
work=            # where data/ and exp/ go; empty: this folder
size=small       # small: made from nothing, for a CPU; 0.5b, 7b: a published Whisper and a published LLM, with the phases of examples/osum
whisper=         # folder or hub name of the Whisper of the larger sizes; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of the larger sizes stops when a phase does not fit
nproc=2          # training processes
phases="1 2 3 4" # training phases of stage 3
average_num=1    # checkpoints averaged
mixture=         # yaml with the rows of the mixture; empty: conf/data.yaml
strict=false     # true: stop when a corpus of the mixture is not prepared, or a task has no data
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--work DIR] [--size small|0.5b|7b] [--whisper DIR] [--llm DIR]
  [--memory_gib N] [--nproc N] [--phases \"1 2 3 4\"] [--average_num N] [--mixture FILE] [--strict true]
  [--override \"a.b=c d=e\"]
Stages: 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/..}")
mixture=$(realpath -m "${mixture:-$here/conf/data.yaml}")
# shellcheck disable=SC2034  # tools/recipe.sh reads it
published="max_epochs=3 optim.warmup_steps=2000"  # settings of the larger sizes, whose own are for 50,000 h
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_models
mkdir -p "$work"
cd "$work"

if in_stages 0; then
  echo "stage 0: gathering what the recipes prepared"
  every=()
  if [ "$strict" = true ]; then every=(--strict); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --mixture "$mixture" --out data "${every[@]}"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  # the recipes have packed; what they made is looked at as one
  python "$WENET_OSUM_ROOT/tools/check_data_list.py" --list data/test/*.list
  python "$WENET_OSUM_ROOT/tools/data_report.py" --disjoint recording --out data/report.html \
    train=data/train/manifest.jsonl dev=data/dev/manifest.jsonl test=data/test/manifest.jsonl
fi

if in_stages 2; then
  echo "stage 2: initial models"
  initial_models data/train/manifest.jsonl
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  train_phases "data/data.yaml"
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the last phase"
  average "${phases##* }"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  decode "$(cat data/tasks)"
fi

if in_stages 6; then
  echo "stage 6: scoring"
  score "$(cat data/tasks)" "Eight tasks, one mixture"
fi

#!/usr/bin/env bash
# VED (vocal events) on environmental sounds, alone or put into speech. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # copy of the official repository, with audio/ and meta/ in it; empty: downloads/ in the work folder, filled by stage -1
work=            # where data/ and exp/ go; empty: this folder
nproc=2          # training processes
phases="1 2 3 4" # training phases of stage 3
average_num=1    # checkpoints averaged
fold=5           # official fold that is the test set; the one before it is dev
speech=          # folder with {train,dev,test}/manifest.jsonl of speech the events are put into, e.g. ../speechocean762/data; empty: events alone
rest=leave_out   # clips whose class has no label here: leave_out, or other (they become the event "other")
strict_counts=false  # true: stop unless the corpus is complete
override=            # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--work DIR] [--nproc N] [--phases \"1 2 3 4\"]
  [--average_num N] [--fold X] [--speech X] [--rest X] [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads/esc50}")
tasks="<CAPTION>" # events alone: there is nothing to transcribe
mixture=$here/conf/data.yaml
if [ -n "$speech" ]; then
  speech=$(realpath -m "$speech") tasks=ved mixture=$here/conf/data_speech.yaml
fi
mkdir -p "$work"
cd "$work"
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

if in_stages -1; then
  if [ -f "$data_dir/meta/esc50.csv" ]; then
    echo "stage -1: $data_dir is there, nothing to download"
  else
    echo "stage -1: downloading https://github.com/karolpiczak/ESC-50 to $data_dir"
    mkdir -p "$(dirname "$data_dir")"
    rm -rf "$data_dir.part"
    git clone --quiet --depth 1 https://github.com/karolpiczak/ESC-50.git "$data_dir.part"
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading the table of clips"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --fold "$fold" --rest "$rest" "${strict[@]}"
  if [ -n "$speech" ]; then
    echo "putting the events into the speech of $speech"
    put_events_into "$speech"
  fi
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  pack_and_list "$tasks" "recording"
fi

if in_stages 2; then
  echo "stage 2: initial models"
  written=data/text/written.jsonl  # clips have no transcript to teach the LLM with
  if [ -n "$speech" ]; then written=data/train/manifest.jsonl; fi
  make_models data/text/train.txt "$written" "$here/conf/models.yaml"
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  train_phases "$mixture"
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the last phase"
  average "${phases##* }"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  decode "$tasks"
fi

if in_stages 6; then
  echo "stage 6: scoring"
  score "$tasks" "ESC-50, fold $fold"
fi

#!/usr/bin/env bash
# SER (emotion) on acted speech, tested on actors nobody trained on. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # folder of the official archive Audio_Speech_Actors_01-24.zip, with Actor_01/ … in it; empty: downloads/ in the work folder, filled by stage -1
work=            # where data/ and exp/ go; empty: this folder
nproc=2          # training processes
phases="1 2 3 4" # training phases of stage 3
average_num=1    # checkpoints averaged
fold=0           # which of six folds of actors is the test set; the next one is dev
actors=          # instead of fold: the actors of each split, e.g. "train=1-12 dev=13-14 test=15-18"
emotions=7       # 7: calm counts as neutral, as the label map has it; 8: it is a label of its own
strict_counts=false  # true: stop unless the corpus is complete
override=            # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--work DIR] [--nproc N] [--phases \"1 2 3 4\"]
  [--average_num N] [--fold X] [--actors \"SPLIT=FIRST-LAST …\"] [--emotions 7|8] [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads/ravdess}")
tasks="ser"
title="RAVDESS, ${actors:-fold $fold}, $emotions emotions"
if [ "$emotions" = 8 ]; then  # the label set of every phase; answers are scored with the set they were chosen from
  override="labels.emotion=[neutral,calm,happy,sad,anger,fear,disgust,surprise] $override"
fi
mkdir -p "$work"
cd "$work"
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

if in_stages -1; then
  if [ -d "$data_dir/Actor_01" ]; then
    echo "stage -1: $data_dir is there, nothing to download"
  else
    echo "stage -1: downloading https://zenodo.org/records/1188976 to $data_dir"
    mkdir -p "$(dirname "$data_dir")"
    mkdir -p "$data_dir.part"
    wget -q -O "$data_dir.part/speech.zip" "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1"
    (cd "$data_dir.part" && python -m zipfile -e speech.zip . && rm speech.zip)
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading labels from the file names"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  # shellcheck disable=SC2086  # actors are words
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --fold "$fold" --emotions "$emotions" ${actors:+--actors $actors} "${strict[@]}"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  pack_and_list "$tasks" "speaker"
fi

if in_stages 2; then
  echo "stage 2: initial models"
  make_models data/text/train.txt data/train/manifest.jsonl "$here/conf/models.yaml"
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  train_phases "$here/conf/data.yaml"
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
  score "$tasks" "$title"
fi

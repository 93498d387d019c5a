#!/usr/bin/env bash
# What drivers of several runs share. To be sourced by them, whose variables it reads.
# shellcheck disable=SC2154

# Trains phase $1 by the yaml $2 on the mixture $3 with the settings that follow, and takes its best checkpoint.
train() {
  local phase=$1 yaml=$2 mixture=$3
  shift 3
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$yaml" \
    --data "data/$mixture/data.yaml" --exp_dir "exp/$phase" --whisper "$whisper" --llm "$llm" --override "$@"
  python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num 1 --out "exp/$phase/final"
}

# The list of TASK:SET.
list_of() { echo "corpora/${1#*:}/data/test/manifest.jsonl"; }

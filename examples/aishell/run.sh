#!/usr/bin/env bash
# ASR and SGC (gender) on read Mandarin, AISHELL-1. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # folder with data_aishell/ and resource_aishell/ in it; empty: downloads/aishell in the recipe's folder, filled by stage -1
work=            # where data/ and exp/ go; empty: this folder
size=0.5b        # 0.5b, 7b: a published Whisper and a published LLM, with the phases of examples/osum; small: made from nothing, to try the stages
whisper=         # folder or hub name of the Whisper of the larger sizes; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of the larger sizes stops when a phase does not fit
nproc=1          # training processes, one a device
phases="1 2 3 4" # training phases of stage 3
average_num=3    # checkpoints averaged
strict_counts=false  # true: stop unless the corpus is complete
override=            # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--work DIR] [--size small|0.5b|7b] [--whisper DIR] [--llm DIR]
  [--nproc N] [--memory_gib N] [--phases \"1 2 3 4\"] [--average_num N] [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads/aishell}")
tasks="asr sgc"
# shellcheck disable=SC2034  # recipe.sh reads it. For 150 h: the epochs and the warm-up of the confs are for thousands of hours
published="optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3"
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_models
mkdir -p "$work"
cd "$work"

if in_stages -1; then
  if [ -d "$data_dir" ]; then
    echo "stage -1: $data_dir is there, nothing to download"
  else
    echo "stage -1: downloading https://www.openslr.org/33 to $data_dir"
    mkdir -p "$data_dir.part"
    for name in resource_aishell data_aishell; do  # begun again, it goes on where it stopped
      wget -c -q -O "$data_dir.part/$name.tgz" "https://www.openslr.org/resources/33/$name.tgz"
      tar -xzf "$data_dir.part/$name.tgz" -C "$data_dir.part"
    done
    for archive in "$data_dir.part"/data_aishell/wav/*.tar.gz; do  # a speaker each
      tar -xzf "$archive" -C "$data_dir.part/data_aishell/wav"
      rm "$archive"
    done
    rm "$data_dir.part"/*.tgz
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading transcripts and speakers"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data "${strict[@]}"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  pack_and_list "$tasks" "speaker"
fi

if in_stages 2; then
  echo "stage 2: initial models"
  initial_models data/train/manifest.jsonl
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
  score "$tasks" "AISHELL-1"
fi

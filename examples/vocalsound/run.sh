#!/usr/bin/env bash
# VED (vocal events) on six sounds by 3,365 people, alone or put into speech. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # the unpacked archive, with audio_16k/ and datafiles/ in it; empty: downloads/vocalsound in this folder, filled by stage -1
work=            # where data/ and exp/ go; empty: this folder
size=small       # small: made from nothing, for a CPU; 0.5b, 7b: a published Whisper and a published LLM, with the phases of examples/osum
whisper=         # folder or hub name of the Whisper of the larger sizes; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of the larger sizes stops when a phase does not fit
nproc=2          # training processes
phases="1 2 3 4" # training phases of stage 3
average_num=1    # checkpoints averaged
speech=          # folder with {train,dev,test}/manifest.jsonl of speech the events are put into, e.g. ../speechocean762/data; empty: events alone
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--work DIR] [--size small|0.5b|7b] [--whisper DIR] [--llm DIR]
  [--memory_gib N] [--nproc N] [--phases \"1 2 3 4\"] [--average_num N] [--speech DIR]
  [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads/vocalsound}")
tasks="<CAPTION>"  # events alone: there is nothing to transcribe
mixture=$here/conf/data.yaml written=data/text/written.jsonl  # nor is there a text to teach the small LLM with
if [ -n "$speech" ]; then
  speech=$(realpath -m "$speech") tasks=ved mixture=$here/conf/data_speech.yaml written=data/train/manifest.jsonl
fi
# shellcheck disable=SC2034  # tools/recipe.sh reads it
published="max_epochs=5 optim.warmup_steps=500 eval_every=500"  # settings of the larger sizes, whose own are for 50,000 h
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_models
mkdir -p "$work"
cd "$work"

if in_stages -1; then
  if [ -d "$data_dir/audio_16k" ]; then
    echo "stage -1: $data_dir is there, nothing to download"
  else
    echo "stage -1: downloading https://github.com/YuanGongND/vocalsound to $data_dir"
    mkdir -p "$data_dir.part"
    wget -q -O "$data_dir.part/16k.zip" "https://www.dropbox.com/s/c5ace70qh1vbyzb/vs_release_16k.zip?dl=1"
    (cd "$data_dir.part" && python -m zipfile -e 16k.zip . && rm 16k.zip)
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading the official lists"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data "${strict[@]}"
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
  initial_models "$written"
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
  score "$tasks" "VocalSound"
fi

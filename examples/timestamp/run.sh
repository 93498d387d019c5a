#!/usr/bin/env bash
# SRWT (words with times) on LibriSpeech or AISHELL-1, with alignments you have or by forced alignment. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
corpus=librispeech  # or aishell: the recipe that prepares it
data_dir=        # its folder, as that recipe takes it; with --source not needed
train="train-clean-100"  # parts of LibriSpeech that are trained on
source=          # instead of data_dir: a folder that is prepared, with train/manifest.jsonl, dev/ and test/ or test_clean/ …
times=           # alignment file or folder; its names are those of the utterances or of the recordings
format=mfa       # of these: mfa, textgrid, ctm or whisper
aligner=         # instead of times: folder of a phase-1 model with a CTC head, for forced alignment
device=cpu       # where the aligner runs
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
help_message="Usage: run.sh [--stage N] [--stop_stage M] --data_dir DIR|--source DIR --times PATH|--aligner DIR [--corpus librispeech|aishell]
  [--train \"PARTS\"] [--format mfa|textgrid|ctm|whisper] [--device NAME] [--work DIR] [--size small|0.5b|7b] [--whisper DIR] [--llm DIR]
  [--nproc N] [--memory_gib N] [--phases \"1 2 3 4\"] [--average_num N] [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
for name in data_dir source times aligner; do
  if [ -n "${!name}" ]; then printf -v "$name" '%s' "$(realpath -m "${!name}")"; fi
done
tasks="asr srwt"
# shellcheck disable=SC2034  # recipe.sh reads these. The epochs and the warm-up of the confs are for thousands of hours
published="optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3" test_sets="test" train_list= normalizer=basic
if [ "$corpus" = librispeech ]; then
  # shellcheck disable=SC2034
  published="lowercase=true $published" test_sets="test_clean test_other"
fi
if [ ! -f "$here/conf/data_$corpus.yaml" ]; then
  echo "--corpus $corpus: known are $(cd "$here/conf" && ls data_*.yaml | sed 's/data_//; s/.yaml//' | tr '\n' ' ')" >&2
  exit 1
fi
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_models
mkdir -p "$work"
cd "$work"

if in_stages 0; then
  echo "stage 0: words get their times"
  if [ -z "$times$aligner$source" ]; then
    echo "give --times (alignments), --aligner (a phase-1 model with a CTC head), or a --source whose manifests hold times" >&2
    exit 1
  fi
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  if [ -z "$source" ]; then
    source=$work/data/source
    if [ "$corpus" = librispeech ]; then strict+=(--train "$train"); fi
    python "$WENET_OSUM_ROOT/examples/$corpus/local/prepare.py" --data_dir "$data_dir" --out "$source" "${strict[@]}"
  fi
  how=()
  if [ -n "$times" ]; then how=(--times "$times" --format "$format"); fi
  if [ -n "$aligner" ]; then
    how=(--aligned data/aligned)
    # shellcheck disable=SC2086  # test_sets are words
    for split in train dev $test_sets; do
      if [ ! -f "$source/$split/manifest.jsonl" ]; then continue; fi
      python "$WENET_OSUM_ROOT/tools/force_align.py" --model "$aligner" --device "$device" "$source/$split/manifest.jsonl" "data/aligned/$split/manifest.jsonl"
    done
  fi
  python "$here/local/prepare.py" --source "$source" --splits "train dev $test_sets" --out data "${how[@]}"
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
  train_phases "$here/conf/data_$corpus.yaml"
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
  score "$tasks" "Words with times, $corpus"
fi

#!/usr/bin/env bash
# ASR on Mandarin of the net, WenetSpeech, 100 h to 10,000 h. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
data_dir=        # folder of the official download, with WenetSpeech.json and audio/ in it
subset=L         # what is trained on: S (100 h), M (1,000 h) or L (10,005 h)
work=            # where data/ and exp/ go; empty: this folder
size=0.5b        # 0.5b, 7b: a published Whisper and a published LLM, with the phases of examples/osum; small: made from nothing, to try the stages
whisper=         # folder or hub name of the Whisper of the larger sizes; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of the larger sizes stops when a phase does not fit
nproc=1          # training processes, one a device
phases="1 2 3 4" # training phases of stage 3
average_num=3    # checkpoints averaged
jobs=8           # processes that pack
job=1            # stage 1 on several machines: which of them this is, from 1
num_jobs=1       # and how many there are; the last to finish makes the lists
strict_counts=false  # true: stop unless the corpus is complete
override=            # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] --data_dir DIR [--subset S|M|L] [--work DIR] [--size small|0.5b|7b] [--whisper DIR] [--llm DIR]
  [--nproc N] [--memory_gib N] [--phases \"1 2 3 4\"] [--average_num N] [--jobs N] [--job N --num_jobs N]
  [--strict_counts true] [--override \"a.b=c d=e\"]
Stages: 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads}")
tasks="asr"
case $subset in  # the epochs and the warm-up of the confs are for L
  S) published="optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3" ;;
  M) published="optim.warmup_steps=1000 optim.accumulation=4 eval_every=1000 max_epochs=2" ;;
  *) published= ;;  # stage 0 says which subsets there are
esac
# shellcheck disable=SC2034  # recipe.sh reads these
test_sets="test_net test_meeting" train_list= normalizer=basic
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_models
mkdir -p "$work"
cd "$work"

if in_stages 0; then
  echo "stage 0: reading WenetSpeech.json, a recording at a time"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --subset "$subset" --out data "${strict[@]}"
fi

if in_stages 1; then
  echo "stage 1: packing, job $job of $num_jobs, and checking"
  # Segments are cut out of recordings of an hour; Opus is decoded here, once, to 16 kHz.
  python "$WENET_OSUM_ROOT/tools/make_shard_list.py" --shuffle --num_utts_per_shard 1000 --num_threads "$jobs" --resample 16000 \
    --job "$job" --num_jobs "$num_jobs" --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  if [ -f data/train/data.list ]; then
    python "$WENET_OSUM_ROOT/tools/check_data_list.py" --list data/train/data.list
    task_lists "$tasks" "recording"
  else
    echo "stage 1: other jobs are still packing; go on with stage 2 when they are done"
    exit 0
  fi
fi

if in_stages 2; then
  echo "stage 2: initial models"
  head -n 100000 data/train/manifest.jsonl >data/text/train.jsonl  # enough for a small LLM
  initial_models data/text/train.jsonl
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
  score "$tasks" "WenetSpeech $subset"
fi

#!/usr/bin/env bash
# ASR and SRWT (recognition with word times) on strings of real spoken digits. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # copy of the official repository; empty: downloads/ in the work folder, filled by stage -1
leave_out=       # speaker to test on alone; empty: the official split (takes 0-4)
work=            # where data/ and exp/ go; empty: this folder, or leave_out/SPEAKER in it
nproc=2          # training processes
phases="1 2 3 4" # training phases of stage 3
average_num=1    # checkpoints averaged
train_strings=8000
dev_strings=100
test_strings=300
strict_counts=false  # true: stop unless the corpus is complete
rescore=ctc_prefix=0.5,word_times=0.5  # of decoding: weights of the adapter's CTC in transcripts and of its frames in word times, chosen on dev
override=            # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--leave_out SPEAKER] [--work DIR] [--nproc N]
  [--phases \"1 2 3 4\"] [--average_num N] [--train_strings N] [--dev_strings N] [--test_strings N]
  [--strict_counts true] [--rescore NAME=WEIGHT,…] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

repository=https://github.com/Jakobovski/free-spoken-digit-dataset.git
cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here${leave_out:+/leave_out/$leave_out}}")
data_dir=$(realpath -m "${data_dir:-$here/downloads/free-spoken-digit-dataset}")
mkdir -p "$work"
cd "$work"
tools=$WENET_OSUM_ROOT/tools

# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

if in_stages -1; then
  if [ -d "$data_dir/recordings" ]; then
    echo "stage -1: $data_dir is there, nothing to download"
  else
    echo "stage -1: downloading $repository to $data_dir"
    mkdir -p "$(dirname "$data_dir")"
    rm -rf "$data_dir.part"
    git clone --quiet --depth 1 "$repository" "$data_dir.part"
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: joining digits into strings"
  strict=()
  if [ "$strict_counts" = true ]; then strict=(--strict_counts); fi
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --leave_out "$leave_out" "${strict[@]}" \
    --train_strings "$train_strings" --dev_strings "$dev_strings" --test_strings "$test_strings"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  for split in train dev test; do
    python "$tools/make_shard_list.py" --num_utts_per_shard 500 --num_threads "$nproc" --manifest "data/$split/manifest.jsonl" \
      "data/$split/shards" "data/$split/data.list"
    python "$tools/check_data_list.py" --list "data/$split/data.list"
  done
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

model=$(experiment "${phases##* }")/final
if in_stages 5; then
  ask=(python -m wenet_osum.bin.recognize --model "$model" --list data/test/data.list --plugins wenet_osum.small)
  for task in asr srwt; do
    echo "stage 5: decoding $task"
    "${ask[@]}" --task "$task" --rescore "$rescore" --out "exp/decode/$task"
    "${ask[@]}" --task "$task" --out "exp/decode_llm/$task"  # the LLM alone, to compare
  done
  "${ask[@]}" --task asr --rescore "$rescore" --prompts all --out exp/prompts/asr
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for task in asr srwt; do
    python -m wenet_osum.bin.score --set "$task=data/test/manifest.jsonl,exp/decode/$task" --compare "exp/decode_llm/$task" --out "exp/score/$task" \
      --report --title "FSDD, $task: joint decoding ($rescore) against the LLM alone"
  done
  python -m wenet_osum.bin.score --set "asr=data/test/manifest.jsonl,exp/prompts/asr" --out exp/score/prompts --report --title "FSDD, every wording"
  echo "scores and reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# Eight tasks with a published Whisper and a published LLM, in the phases of the paper. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
data_dir=        # folder with a manifest a task: asr.jsonl, srwt.jsonl, …; and TASK.test.jsonl where there is a test set
work=            # where data/ and exp/ go; empty: this folder
size=7b          # conf/SIZE: 7b (Whisper-medium and Qwen2-7B) or 0.5b (Whisper-small and Qwen2-0.5B, one 24 GB card)
whisper=         # folder or hub name of the Whisper; empty: as the confs name it
llm=             # the same for the LLM
nproc=8          # training processes, one a device
devices=0        # devices the counted time of stage 2 is for; 0: nproc
memory_gib=80    # of one device; stage 2 stops when a phase does not fit
peak_tflops=989  # of one device in bfloat16, for the counted time of stage 2
phases="1_whisper 2_adapter 3_encoder 4_lora"  # or 4_full in the place of 4_lora
margin=2         # points a phase may be worse than the one before, on dev
average_num=5    # checkpoints averaged
num_utts_per_shard=1000
jobs=8           # processes that pack
override=        # settings for every training phase, e.g. "optim.accumulation=12 batch.max_frames=3900"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh --data_dir DIR [--stage N] [--stop_stage M] [--work DIR] [--size 7b|0.5b] [--whisper DIR] [--llm DIR] [--nproc N]
  [--devices N] [--memory_gib N] [--peak_tflops N] [--phases \"1_whisper 2_adapter 3_encoder 4_lora\"] [--margin POINTS]
  [--average_num N] [--num_utts_per_shard N] [--jobs N] [--override \"a.b=c d=e\"]
Stages: 0 prepare, 1 check and pack, 2 initial models: what they cost, 3 train and gate, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

tasks="asr srwt ved ser ssr sgc sap sttc"
cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$here/downloads}")
for name in whisper llm; do  # a folder is made absolute, a hub name stays
  if [ -n "${!name}" ] && [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
done
mkdir -p "$work"
cd "$work"
tools=$WENET_OSUM_ROOT/tools
last=${phases##* }

in_stages() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]
}

# Trains phase $1. Phases 1 and 2 name the published models; the others begin from a folder of ours.
train() {
  local settings=() setting
  case $1 in
    1_*) settings=(${whisper:+"model.whisper=$whisper"}) ;;
    2_*) settings=(${whisper:+"model.whisper=$whisper"} ${llm:+"model.llm=$llm"}) ;;
  esac
  for setting in $override; do settings+=("$setting"); done
  for setting in "${settings[@]}"; do set -- "$@" --override "$setting"; done
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$here/conf/$size/train_$1.yaml" \
    --data "$here/conf/data.yaml" --exp_dir "exp/$1" "${@:2}"
}

# Compares phase $1 with what it began from. Phase 2 has nothing to be compared with: phase 1 cannot answer.
gate() {
  local before
  case $1 in
    1_*) before=${whisper:-$(sed -n 's/.*whisper: \([^,} ]*\), ctc.*/\1/p' "$here/conf/$size/train_$1.yaml")} ;;
    2_*) return 0 ;;
    *) before=$(sed -n 's/.*init_from: \([^,} ]*\).*/\1/p' "$here/conf/$size/train_$1.yaml") ;;
  esac
  python -m wenet_osum.bin.compare --exp_dir "exp/$1" --before "$before" --dev data/dev --margin "$margin" --batch_size 64
}

if in_stages 0; then
  echo "stage 0: checking the manifests and setting dev aside"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --tasks "$tasks"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  for task in $tasks; do
    python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard "$num_utts_per_shard" --num_threads "$jobs" --manifest "data/train/$task.jsonl" \
      "data/train/$task" "data/train/$task.list"
    python "$tools/check_data_list.py" --list "data/train/$task.list"
  done
fi

if in_stages 2; then
  echo "stage 2: what the phases will cost with the initial models"
  confs=()
  for phase in $phases; do confs+=("$here/conf/$size/train_$phase.yaml"); done
  python -m wenet_osum.bin.estimate --config "${confs[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} \
    --devices "$([ "$devices" = 0 ] && echo "$nproc" || echo "$devices")" --memory_gib "$memory_gib" --peak_tflops "$peak_tflops"
fi

if in_stages 3; then
  for phase in $phases; do
    echo "stage 3: training phase $phase"
    train "$phase"
    gate "$phase"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the last $average_num checkpoints of $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode last --num "$average_num" --out "exp/$last/average"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  for task in $tasks; do
    if [ ! -f "data/test/$task.list" ]; then echo "no test set of $task"; continue; fi
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/average" --list "data/test/$task.list" \
      --task "$task" --out "exp/$last/decode/$task" --batch_size 64
  done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  sets=()
  for task in $tasks; do
    if [ -f "data/test/$task.list" ]; then sets+=(--set "$task=data/test/$task.list,exp/$last/decode/$task"); fi
  done
  python -m wenet_osum.bin.score "${sets[@]}" --normalizer basic --out "exp/$last/score" --report --title "OSUM recipe, $size" \
    --exp exp/1_whisper exp/2_adapter exp/3_encoder "exp/$last"
  echo "report: $work/exp/$last/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

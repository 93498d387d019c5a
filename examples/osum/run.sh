#!/usr/bin/env bash
# Eight tasks with a published Whisper and a published LLM, in the phases of the paper. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage
stop_stage=6     # last stage
data_dir=$here/downloads  # folder with a manifest per task: asr.jsonl, srwt.jsonl, …; and TASK.test.jsonl where there is a test set
work=$here       # where data/ and exp/ go
size=7b          # conf/SIZE: 7b (Whisper-medium and Qwen2-7B) or 0.5b (Whisper-small and Qwen2-0.5B, one 24 GB card)
whisper=         # folder or hub name of the Whisper; empty: as the confs name it
llm=             # the same for the LLM
nproc=8          # processes that train and decode, one per device
devices=         # devices the counted time of stage 2 is for; empty: nproc
memory_gib=80    # of one device; stage 2 stops when a phase does not fit
peak_tflops=989  # of one device in bfloat16, for the counted time of stage 2
phases="1 2 3 4_lora"  # training phases of stage 3; or 4_full in the place of 4_lora
margin=2         # points a phase may be worse than the one before, on dev
average_num=5    # checkpoints averaged
num_utts_per_shard=1000  # utterances per shard
jobs=8           # processes that pack
override=        # settings for every training phase, e.g. "optim.accumulation=12 batch.max_frames=3900"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir
tasks="asr srwt ved ser ssr sgc sap sttc"

if in_stages 0; then
  echo "stage 0: checking the manifests and setting dev aside"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --tasks "$tasks"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  # A list per task, so that conf/data.yaml can weight them. What cannot be packed is counted by reason.
  for task in $tasks; do
    python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard "$num_utts_per_shard" --num_threads "$jobs" \
      --manifest "data/train/$task.jsonl" "data/train/$task" "data/train/$task.list"
    python "$tools/check_data_list.py" --list "data/train/$task.list"
  done
  # The reference text of ASR, for compute-wer.py.
  [ ! -f data/test/asr.list ] || python "$tools/make_task_lists.py" --tasks asr data/test/asr.list data/test/reference
fi

if in_stages 2; then
  echo "stage 2: what the phases will cost with the initial models"
  python -m wenet_osum.bin.estimate --config "${configs[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} \
    --devices "${devices:-$nproc}" --memory_gib "$memory_gib" --peak_tflops "$peak_tflops"
fi

if in_stages 3; then
  echo "stage 3: training phases $phases, each compared on dev with what it began from"
  for phase in $phases; do
    # On several machines, give torchrun --nnodes and --rdzv_endpoint instead of --standalone; local/slurm.sh does so under SLURM.
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$here/conf/data.yaml" --exp_dir "exp/$phase" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --override $override
    case $phase in
      1_*) before=${whisper:-openai/whisper-$([ "$size" = 7b ] && echo medium || echo small)} ;;
      2_*) continue ;;  # there is nothing to compare it with: phase 1 cannot answer
      3_*) before=exp/2_adapter/final ;;
      4_*) before=exp/3_encoder/final ;;
    esac
    # Stops the recipe when a figure of dev is worse by more than the margin.
    python -m wenet_osum.bin.compare --exp_dir "exp/$phase" --before "$before" --dev data/dev --margin "$margin" --batch_size 64
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the last $average_num checkpoints of $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode last --num "$average_num" --out "exp/$last/average"
fi

if in_stages 5; then
  echo "stage 5: decoding the tasks that have a test set"
  # Greedy by default; see wenet_osum recognize --help for beams, rescoring and prompts. What is decoded already is kept.
  for task in $tasks; do
    list=data/test/$task.list
    if [ ! -f "$list" ]; then continue; fi
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/average" --list "$list" \
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
  # The block WeNet's users know; exp/PHASE/score/wer has every utterance.
  [ ! -f data/test/asr.list ] || python "$tools/compute-wer.py" --char=1 --v=1 data/test/reference/asr.text "exp/$last/decode/asr/text" |
    tee "exp/$last/score/wer" | tail -n 8
  echo "report: $work/exp/$last/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

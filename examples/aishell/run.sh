#!/usr/bin/env bash
# ASR and SGC (gender) on read Mandarin, AISHELL-1. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=$here/downloads/aishell  # folder with data_aishell/ and resource_aishell/ in it, filled by stage -1
work=$here       # where data/ and exp/ go
size=0.5b        # small: models made from nothing, for a CPU; 0.5b, 7b: a published Whisper and LLM, in the phases of examples/osum
whisper=         # folder or hub name of the Whisper of sizes 0.5b and 7b; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of sizes 0.5b and 7b stops when a phase does not fit
nproc=1          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
tasks="asr sgc"  # what is decoded and scored; asr alone where the corpus came without resource_aishell/speaker.info
average_num=3    # checkpoints averaged
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir
mixture=$([ "$tasks" = asr ] && echo data_asr || echo data)
# For 150 h: epochs and warm-up of the published sizes are for thousands of hours.
if [ "$size" != small ]; then override="optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3 $override"; fi

if in_stages -1; then
  echo "stage -1: https://www.openslr.org/33 → $data_dir; nothing to download where it is there"
  if [ ! -d "$data_dir" ]; then
    bash "$here/local/download.sh" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading transcripts and speakers"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data $(flag strict_counts)
  # Hours, durations and labels of the splits on one page; a speaker in two of them stops here.
  python "$tools/data_report.py" --disjoint speaker --out data/report.html data/train data/dev data/test
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  # Shards of 500 utterances, which training reads one after the other. What cannot be packed is counted by reason.
  python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$tools/check_data_list.py" --list data/train/data.list
  # A list per task and, for scoring, its reference text, out of what holds the task's fields.
  python "$tools/make_task_lists.py" --tasks "$tasks" data/dev data/test
fi

if in_stages 2; then
  echo "stage 2: initial models"
  if [ "$size" = small ]; then
    # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
      --manifest data/train/manifest.jsonl --conf "$conf/models.yaml" --out exp/init
  else
    # Published models stay as they are. This counts what each phase will take, and stops when one does not fit.
    python -m wenet_osum.bin.estimate --config "${configs[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} \
      --devices "$nproc" --memory_gib "$memory_gib"
  fi
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  # Each phase begins from the average of the one before. Started again, it goes on from its last checkpoint.
  # On several machines, give torchrun --nnodes and --rdzv_endpoint instead of --standalone (docs/training.md).
  for phase in $phases; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$here/conf/$mixture.yaml" --exp_dir "exp/$phase" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --override $override
    [ "$phase" = "$last" ] || python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num "$average_num" --out "exp/$phase/final"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of phase $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode best --num "$average_num" --out "exp/$last/final"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  # Greedy by default; see wenet_osum recognize --help for beams, rescoring and prompts. What is decoded already is kept.
  for task in $tasks; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/final" \
      --list "data/test/$task.list" --task "$task" --out "exp/decode/$task"
  done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  python -m wenet_osum.bin.score $(for task in $tasks; do echo "--set $task=data/test/$task.list,exp/decode/$task"; done) \
    --train_list data/train/manifest.jsonl --out exp/score --report --title "AISHELL-1"
  # The block WeNet's users know; exp/score/wer has every utterance.
  python "$tools/compute-wer.py" --char=1 --v=1 data/test/asr.text exp/decode/asr/text | tee exp/score/wer | tail -n 8
  echo "report: $work/exp/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# VED (vocal events) on environmental sounds, alone or put into speech. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=$here/downloads/esc50  # copy of the official repository, with audio/ and meta/ in it, filled by stage -1
work=$here       # where data/ and exp/ go
nproc=2          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=1    # checkpoints averaged
fold=5           # official fold that is the test set; the one before it is dev
speech=          # folder with {train,dev,test}/manifest.jsonl of speech the events are put into, e.g. ../speechocean762/data; empty: events alone
rest=leave_out   # clips whose class has no label here: leave_out, or other (they become the event "other")
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf
name_phases
go_to_work data_dir speech
# Events alone: there is nothing to transcribe, and no text to teach the small LLM with.
tasks="<CAPTION>" mixture=$here/conf/data.yaml written=data/text/written.jsonl
if [ -n "$speech" ]; then tasks=ved mixture=$here/conf/data_speech.yaml written=data/train/manifest.jsonl; fi

if in_stages -1; then
  echo "stage -1: https://github.com/karolpiczak/ESC-50 → $data_dir; nothing to download where it is there"
  if [ ! -f "$data_dir/meta/esc50.csv" ]; then
    mkdir -p "$(dirname "$data_dir")"
    rm -rf "$data_dir.part"
    git clone --quiet --depth 1 https://github.com/karolpiczak/ESC-50.git "$data_dir.part"
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading the table of clips"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --fold "$fold" --rest "$rest" $(flag strict_counts)
  if [ -n "$speech" ]; then
    # The events of a split go into the speech of the same split; both recordings stay named.
    python "$tools/add_events.py" --jobs "$nproc" --events data --wav_dir "$PWD/data/wav" "$speech" data
    if [ -f "$speech/text/train.txt" ]; then cat "$speech/text/train.txt" >>data/text/train.txt; fi
  fi
  # Hours, durations and labels of the splits on one page; a recording in two of them stops here.
  python "$tools/data_report.py" --disjoint recording --out data/report.html data/train data/dev data/test
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
  # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
    --manifest "$written" --conf "$conf/models.yaml" --out exp/init
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  # Each phase begins from the average of the one before. Started again, it goes on from its last checkpoint.
  # On several machines, give torchrun --nnodes and --rdzv_endpoint instead of --standalone (docs/training.md).
  for phase in $phases; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$mixture" --exp_dir "exp/$phase" --override $override
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
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/final" \
    --list "data/test/$tasks.list" --task "$tasks" --out "exp/decode/$tasks"
fi

if in_stages 6; then
  echo "stage 6: scoring"
  python -m wenet_osum.bin.score --set "$tasks=data/test/$tasks.list,exp/decode/$tasks" \
    --train_list data/train/manifest.jsonl --out exp/score --report --title "ESC-50, fold $fold"
  # The same as a table; with --speech, compute-wer.py tells the errors of the words around the events.
  python "$tools/compute-acc.py" --v=1 "data/test/$tasks.text" "exp/decode/$tasks/text" | tail -n 12
  if [ -n "$speech" ]; then python "$tools/compute-wer.py" --v=0 data/test/ved.text exp/decode/ved/text; fi
  echo "report: $work/exp/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

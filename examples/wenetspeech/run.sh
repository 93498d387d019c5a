#!/usr/bin/env bash
# ASR on Mandarin of the net, WenetSpeech, 100 h to 10,000 h. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage
stop_stage=6     # last stage
data_dir=$here/downloads  # folder of the official download, with WenetSpeech.json and audio/ in it
subset=L         # what is trained on: S (100 h), M (1,000 h) or L (10,005 h)
work=$here       # where data/ and exp/ go
size=0.5b        # small: models made from nothing, for a CPU; 0.5b, 7b: a published Whisper and LLM, in the phases of examples/osum
whisper=         # folder or hub name of the Whisper of sizes 0.5b and 7b; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of sizes 0.5b and 7b stops when a phase does not fit
nproc=1          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=3    # checkpoints averaged
jobs=8           # processes that pack
job=1            # stage 1 on several machines: which of them this is, from 1
num_jobs=1       # and how many there are; the last to finish makes the lists
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir
tasks=asr
# Epochs and warm-up of the published sizes are for L; stage 0 says which subsets there are.
case $size/$subset in
  small/*) ;;
  */S) override="optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3 $override" ;;
  */M) override="optim.warmup_steps=1000 optim.accumulation=4 eval_every=1000 max_epochs=2 $override" ;;
esac

if in_stages 0; then
  echo "stage 0: reading WenetSpeech.json, one recording at a time"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --subset "$subset" $(flag strict_counts)
  # Hours, durations and labels of the splits on one page; a recording in two of them stops here.
  python "$tools/data_report.py" --disjoint recording --out data/report.html data/dev data/test_*
fi

if in_stages 1; then
  echo "stage 1: packing, job $job of $num_jobs, and checking"
  # Segments are cut out of recordings of an hour; Opus is decoded here, once, to 16 kHz.
  python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 1000 --num_threads "$jobs" --resample 16000 \
    --job "$job" --num_jobs "$num_jobs" --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  [ -f data/train/data.list ] || { echo "other jobs are still packing; go on with stage 2 when they are done"; exit 0; }
  python "$tools/check_data_list.py" --list data/train/data.list
  python "$tools/make_task_lists.py" --tasks "$tasks" data/dev data/test_*
  # The test sets together, for recipes that mix others.
  mkdir -p data/test && cat data/test_*/manifest.jsonl >data/test/manifest.jsonl
  head -n 100000 data/train/manifest.jsonl >data/text/train.jsonl  # enough for a small LLM
fi

if in_stages 2; then
  echo "stage 2: initial models"
  if [ "$size" = small ]; then
    # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
      --manifest data/text/train.jsonl --conf "$conf/models.yaml" --out exp/init
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
      --data "$here/conf/data.yaml" --exp_dir "exp/$phase" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --override $override
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
  for set in data/test_*; do
    for task in $tasks; do
      torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/final" \
        --list "$set/$task.list" --task "$task" --out "exp/decode/${set#data/}/$task"
    done
  done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for set in data/test_*; do
    name=${set#data/}
    python -m wenet_osum.bin.score --set "asr=$set/asr.list,exp/decode/$name/asr" \
      --normalizer basic --out "exp/score/$name" --report --title "WenetSpeech $subset, $name"
    # The block WeNet's users know; exp/score/$name/wer has every utterance.
    python "$tools/compute-wer.py" --char=1 --v=1 "$set/asr.text" "exp/decode/$name/asr/text" | tee "exp/score/$name/wer" | tail -n 8
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# ASR, SGC (gender) and SAP (age group) on sentences that volunteers of all the world read. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=$here/downloads/commonvoice  # an unpacked release, with a folder per language in it
work=$here       # where data/ and exp/ go
size=small       # small: models made from nothing, for a CPU; 0.5b, 7b: a published Whisper and LLM, in the phases of examples/osum
whisper=         # folder or hub name of the Whisper of sizes 0.5b and 7b; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of sizes 0.5b and 7b stops when a phase does not fit
nproc=2          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=1    # checkpoints averaged
langs=en         # languages as the release names their folders, e.g. "en zh-CN"
train_table=train  # table that is trained on: train, or validated, which is larger
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir
tasks="asr sgc sap"
# Epochs and warm-up of the published sizes are for 50,000 h.
if [ "$size" != small ]; then override="max_epochs=3 optim.warmup_steps=2000 $override"; fi

if in_stages -1; then
  echo "stage -1: looking for $data_dir"
  if compgen -G "$data_dir/*/test.tsv" >/dev/null || compgen -G "$data_dir/cv-corpus-*/*/test.tsv" >/dev/null; then
    echo "it is there, nothing to download"
  else
    echo "https://commonvoice.mozilla.org/datasets gives a link to each person who asks, so that nothing can be downloaded here;" >&2
    echo "unpack the archives of $langs into $data_dir, or point --data_dir at them" >&2
    exit 1
  fi
fi

if in_stages 0; then
  echo "stage 0: reading the tables of $langs"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data --langs "$langs" --train "$train_table" $(flag strict_counts)
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
  for task in $tasks; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/final" \
      --list "data/test/$task.list" --task "$task" --out "exp/decode/$task"
  done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  sets=()
  for task in $tasks; do sets+=(--set "$task=data/test/$task.list,exp/decode/$task"); done
  python -m wenet_osum.bin.score "${sets[@]}" --train_list data/train/manifest.jsonl --out exp/score --report --title "Common Voice, $langs"
  # The block WeNet's users know; exp/score/wer has every utterance.
  python "$tools/compute-wer.py" --char=1 --v=1 data/test/asr.text exp/decode/asr/text | tee exp/score/wer | tail -n 8
  echo "report: $work/exp/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# VED (vocal events) on six sounds by 3,365 people, alone or put into speech. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=$here/downloads/vocalsound  # the unpacked archive, with audio_16k/ and datafiles/ in it, filled by stage -1
work=$here       # where data/ and exp/ go
size=small       # small: models made from nothing, for a CPU; 0.5b, 7b: a published Whisper and LLM, in the phases of examples/osum
whisper=         # folder or hub name of the Whisper of sizes 0.5b and 7b; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of sizes 0.5b and 7b stops when a phase does not fit
nproc=2          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=1    # checkpoints averaged
speech=          # folder with {train,dev,test}/manifest.jsonl of speech the events are put into, e.g. ../speechocean762/data; empty: events alone
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir speech
# Events alone: there is nothing to transcribe, and no text to teach the small LLM with.
tasks="<CAPTION>" mixture=$here/conf/data.yaml written=data/text/written.jsonl
if [ -n "$speech" ]; then tasks=ved mixture=$here/conf/data_speech.yaml written=data/train/manifest.jsonl; fi
# Epochs and warm-up of the published sizes are for 50,000 h.
if [ "$size" != small ]; then override="max_epochs=5 optim.warmup_steps=500 eval_every=500 $override"; fi

if in_stages -1; then
  echo "stage -1: https://github.com/YuanGongND/vocalsound → $data_dir; nothing to download where it is there"
  if [ ! -d "$data_dir/audio_16k" ]; then
    mkdir -p "$data_dir.part"
    wget -q -O "$data_dir.part/16k.zip" "https://www.dropbox.com/s/c5ace70qh1vbyzb/vs_release_16k.zip?dl=1"
    (cd "$data_dir.part" && python -m zipfile -e 16k.zip . && rm 16k.zip)
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: reading the official lists"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out data $(flag strict_counts)
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
  if [ "$size" = small ]; then
    # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
      --manifest "$written" --conf "$conf/models.yaml" --out exp/init
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
      --data "$mixture" --exp_dir "exp/$phase" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --override $override
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
    --train_list data/train/manifest.jsonl --out exp/score --report --title "VocalSound"
  # The same as a table; with --speech, compute-wer.py tells the errors of the words around the events.
  python "$tools/compute-acc.py" --v=1 "data/test/$tasks.text" "exp/decode/$tasks/text" | tail -n 12
  if [ -n "$speech" ]; then python "$tools/compute-wer.py" --v=0 data/test/ved.text exp/decode/ved/text; fi
  echo "report: $work/exp/score/report.html; training curves: tensorboard --logdir $work/exp"
fi

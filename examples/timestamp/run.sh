#!/usr/bin/env bash
# SRWT (words with times) on LibriSpeech or AISHELL-1, with alignments you have or by forced alignment. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage
stop_stage=6     # last stage
corpus=librispeech  # or aishell: the recipe that prepares it
data_dir=        # its folder, as that recipe takes it; with --source not needed
train=train-clean-100  # parts of LibriSpeech that are trained on
source=          # instead of data_dir: a folder that is prepared, with train/manifest.jsonl, dev/ and test/ or test_clean/ …
times=           # alignment file or folder; its names are those of the utterances or of the recordings
format=mfa       # of these: mfa, textgrid, ctm or whisper
aligner=         # instead of times: folder of a phase-1 model with a CTC head, for forced alignment
device=cpu       # where the aligner runs
work=$here       # where data/ and exp/ go
size=0.5b        # small: models made from nothing, for a CPU; 0.5b, 7b: a published Whisper and LLM, in the phases of examples/osum
whisper=         # folder or hub name of the Whisper of sizes 0.5b and 7b; empty: as examples/osum names it
llm=             # the same for the LLM
memory_gib=24    # of one device; stage 2 of sizes 0.5b and 7b stops when a phase does not fit
nproc=1          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=3    # checkpoints averaged
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
choose_size
go_to_work data_dir source times aligner
case $corpus in
  librispeech) splits="train dev test_clean test_other" tests="data/test_*" parts=(--train "$train") own=lowercase=true ;;
  aishell) splits="train dev test" tests=data/test parts=() own= ;;
  *) echo "--corpus $corpus: known are aishell librispeech" >&2; exit 1 ;;
esac
# For hundreds of hours: epochs and warm-up of the published sizes are for thousands.
if [ "$size" != small ]; then override="$own optim.warmup_steps=200 optim.accumulation=4 eval_every=500 max_epochs=3 $override"; fi

if in_stages 0; then
  echo "stage 0: words get their times"
  [ -n "$times$aligner$source" ] || { echo "give --times (alignments), --aligner (a phase-1 model with CTC), or a --source with times" >&2; exit 1; }
  if [ -z "$source" ]; then
    source=$work/data/source  # as the recipe of the corpus prepares it
    python "$here/../$corpus/local/prepare.py" --data_dir "$data_dir" --out "$source" "${parts[@]}" $(flag strict_counts)
  fi
  [ -z "$aligner" ] || python "$tools/force_align.py" --model "$aligner" --device "$device" "$source" data/aligned
  python "$here/local/prepare.py" --source "$source" --splits "$splits" --out data \
    ${times:+--times "$times" --format "$format"} ${aligner:+--aligned data/aligned}
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  # Hours, durations and labels of the splits on one page; a speaker in two of them stops here.
  python "$tools/data_report.py" --disjoint speaker --out data/report.html data/train data/dev $tests
  # Shards of 500 utterances, which training reads one after the other. What cannot be packed is counted by reason.
  python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  # A list per task and, for scoring, its reference text, out of what holds the task's fields.
  python "$tools/make_task_lists.py" --tasks "asr srwt" data/dev $tests
  [ "$corpus" = aishell ] || { mkdir -p data/test; cat data/test_*/manifest.jsonl >data/test/manifest.jsonl; }
fi

if in_stages 2; then
  echo "stage 2: initial models"
  if [ "$size" = small ]; then
    # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
      --manifest data/train/manifest.jsonl --conf "$conf/models.yaml" --out exp/init
  else
    # Published models stay as they are. This counts what each phase will take, and stops when one does not fit.
    python -m wenet_osum.bin.estimate --config "${configs[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --devices "$nproc" --memory_gib "$memory_gib"
  fi
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  # Each phase begins from the average of the one before. Started again, it goes on from its last checkpoint.
  for phase in $phases; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$here/conf/data_$corpus.yaml" --exp_dir "exp/$phase" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} --override $override
    [ "$phase" = "$last" ] || python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num "$average_num" --out "exp/$phase/final"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of phase $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode best --num "$average_num" --out "exp/$last/final"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  for set in $tests; do for task in asr srwt; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.recognize --model "exp/$last/final" \
      --list "$set/$task.list" --task "$task" --out "exp/decode/${set#data/}/$task"
  done; done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for set in $tests; do
    name=${set#data/}
    python -m wenet_osum.bin.score --set "asr=$set/asr.list,exp/decode/$name/asr" --set "srwt=$set/srwt.list,exp/decode/$name/srwt" \
      --normalizer basic --out "exp/score/$name" --report --title "Words with times, $corpus, $name"
    python "$tools/compute-wer.py" --char=1 --v=1 "$set/asr.text" "exp/decode/$name/asr/text" | tee "exp/score/$name/wer" | tail -n 8
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

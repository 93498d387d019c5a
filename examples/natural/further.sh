#!/usr/bin/env bash
# What a short further phase teaches the model of phase 3: to take words that may occur, to stay silent where nobody speaks, to keep its text; then one table.
# Needs what run.sh has left in --work. README.md explains it; --help lists its options.
# shellcheck disable=SC2086,SC2154  # options and settings are words; tools/recipe.sh sets tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage: 0 lists, 1 mixture, 3 training, 5 decoding, 6 scores and table
stop_stage=6     # last stage
work=$here       # where run.sh has worked; runs go to exp/further/ in it
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM
nproc=2          # processes of training
arms="plain told kept"  # yamls of conf/further
silent=0.05      # share of recordings in which nobody speaks
override=        # settings for training, e.g. "dtype=bfloat16"
decode=          # options of decoding, e.g. "--dtype bfloat16"
text_dtype=float32  # in which text is answered

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
phases="3"
go_to_work
. "$here/local/runs.sh"  # train, list_of

if in_stages 0; then
  echo "stage 0: recordings without speech, and the words that are told"
  # Sounds of ESC-50 other than of a voice; silence and noise are made.
  for split in train dev test; do
    python "$here/local/lists.py" --manifest "corpora/sounds/data/$split/manifest.jsonl" --event other --out "corpora/silence/data/$split/sounds.jsonl"
  done
  seed=0
  for split in train:speechocean762:"$silent" dev:speechocean762:"$silent" test:test300:0.3; do
    IFS=: read -r split speech share <<<"$split"
    seed=$((seed + 1))
    python "$tools/make_silence.py" --share "$share" --seed "$seed" --recordings "corpora/silence/data/$split/sounds.jsonl" \
      --wav_dir "$work/corpora/silence/wav/$split" "corpora/$speech/data/$split/manifest.jsonl" "corpora/silence/data/$split/manifest.jsonl"
  done
  cp corpora/silence/data/train/manifest.jsonl corpora/silence/data/train/data.list
  python "$here/local/hotwords.py" --train corpora/speechocean762/data/train/manifest.jsonl --manifest "$(list_of :test300)" --out "$(list_of :hot300)"
fi

if in_stages 1; then
  echo "stage 1: the mixture"
  python "$WENET_OSUM_ROOT/examples/multitask/local/prepare.py" --limit 60 0 --data_dir corpora --mixture "$here/conf/further/data.yaml" --out data/further
fi

if in_stages 3; then
  for arm in $arms; do
    echo "stage 3: training further/$arm"
    mixture=$([ "$arm" = plain ] && echo all || echo further)
    train "further/$arm" "$here/conf/further/$arm.yaml" "$mixture" $override
  done
fi

for arm in before $arms; do
  model=exp/further/$arm/final out=exp/further/$arm
  # WAY/SET: only models that were trained with words that may occur can be told some; told_joint decodes jointly with CTC.
  tests="untold/hot300 untold/silence"
  case $arm in
    before) model=exp/3_joint/final ;;
    plain) ;;
    *) tests="$tests told/hot300 told_joint/hot300" ;;
  esac
  if in_stages 5; then
    echo "stage 5: decoding with $model"
    for test in $tests; do
      case ${test%/*} in
        untold) way=--no_context ;;
        told) way= ;;
        told_joint) way="--rescore ctc_prefix=0.2" ;;
      esac
      python -m wenet_osum.bin.recognize --model "$model" --list "$(list_of ":${test#*/}")" --task asr --lang en $way $decode --out "$out/$test"
    done
    # No gate: what is lost stands in the table.
    python "$tools/text_check.py" --model "$model" --dtype "$text_dtype" --threads "$nproc" --out "$out/text"
  fi
  if in_stages 6; then
    for test in $tests; do
      python -m wenet_osum.bin.score --set "asr=$(list_of ":${test#*/}"),$out/$test" --normalizer whisper_en --resample speaker --out "$out/$test/score"
    done
  fi
done

if in_stages 6; then
  echo "stage 6: the table"
  python "$here/local/further_table.py" --runs exp/further --arms "before $arms" --out exp/further/table.md
fi

#!/usr/bin/env bash
# Soundwave's three stages on the corpora that examples/natural prepares. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
corpora_dir=     # work folder of examples/natural after its stage 1; empty: that recipe's own folder
work=            # where corpora/, data/ and exp/ go; empty: this folder
whisper=openai/whisper-base           # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct        # folder or hub name of the LLM, one with a chat template
nproc=2          # training processes
phases="1 2 3"   # training phases of stage 3: CTC alone, shrinking with LoRA, answers
cleaned=speechocean762                # corpora that a first pass of the Whisper cleans
rules="--max_wer 30 --min_s 1"        # of tools/filter_by_wer.py; the paper has 10 % and 3 s, with Whisper-medium
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--corpora_dir DIR] [--work DIR] [--whisper DIR] [--llm DIR] [--nproc N]
  [--phases \"1 2 3\"] [--cleaned \"NAME …\"] [--rules \"--max_wer 30 …\"] [--average_num N] [--override \"a.b=c d=e\"]
Stages: 0 corpora of examples/natural, 1 first pass, filter and mixtures, 2 classes of CTC, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
tools=$WENET_OSUM_ROOT/tools
examples=$(dirname "$here")
corpora_dir=$(realpath -m "${corpora_dir:-$examples/natural}")
for name in whisper llm; do  # a folder is made absolute, a hub name stays
  if [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
done
# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 asr:en_word_times sgc:adults sap:speechocean762 ser:ravdess ved:esc50 srwt:fsdd sttc:replies"
mkdir -p "$work/corpora"
cd "$work"
# shellcheck source=../../tools/recipe.sh
. "$tools/recipe.sh"

# The mixture of the rows of $1 that are prepared, with its dev lists, as $2/data.yaml.
mixture() {
  python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$here/conf/$1" --out "$2"
}

# The list of test set $1, nothing where it is not there.
test_list() {
  local list=corpora/${1#*:}/data/test/manifest.jsonl
  if [ -f "$list" ]; then echo "$list"; else echo "test $1 is left out: no $list" >&2; fi
}

if in_stages 0; then
  echo "stage 0: the corpora of $corpora_dir"
  python "$here/local/prepare.py" --data_dir "$corpora_dir" --out corpora
fi

if in_stages 1; then
  echo "stage 1: what the published Whisper hears as it is written, and the mixtures"
  for name in $cleaned; do
    if [ ! -d "corpora/$name" ]; then continue; fi
    clean=corpora/clean_$name/data
    mkdir -p "$clean/train"
    for split in dev test; do ln -sfn "$(realpath "corpora/$name/data/$split")" "$clean/$split"; done
    # A first pass over the training set; transcripts it does not hear are not learned from.
    python "$tools/decode_whisper.py" --model "$whisper" --list "corpora/$name/data/train/manifest.jsonl" --language en --threads "$nproc" --out "exp/first_pass/$name"
    # shellcheck disable=SC2086  # rules are words
    python "$tools/filter_by_wer.py" --hyp "exp/first_pass/$name" --normalizer whisper_en $rules "corpora/$name/data/train/manifest.jsonl" "$clean/train/manifest.jsonl"
    python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" --manifest "$clean/train/manifest.jsonl" \
      "$clean/train/shards" "$clean/train/data.list"
  done
  # Recognition alone for phase 1; every task, rare ones more with every epoch, for 2; answers in several forms for 3.
  mixture data_asr.yaml data/asr
  mixture data.yaml data/all
  mixture data_sft.yaml data/sft
fi

if in_stages 2; then
  echo "stage 2: the LLM's tokens that CTC may spell the transcripts with"
  python "$tools/make_ctc_classes.py" --tokenizer "$llm" --lowercase --list data/asr/train/manifest.jsonl --out data/ctc_classes.json
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  for phase in $phases; do
    settings=()
    if [ "$phase" = 1 ]; then settings=(--override "model.whisper=$whisper" --override "model.llm=$llm"); fi
    if [ "$phase" = 3 ]; then settings=(--override "prompts=$here/local/prompts.yaml"); fi
    for setting in $override; do settings+=(--override "$setting"); done
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$(conf_of "$phase")" --exp_dir "$(experiment "$phase")" "${settings[@]}"
    if [ "$phase" != "${phases##* }" ]; then average "$phase"; fi
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the last phase"
  average "${phases##* }"
fi

if in_stages 5; then
  echo "stage 5: decoding; each run says how many LLM tokens a second of speech took"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.recognize --model "$(experiment "${phases##* }")/final" --list "$list" --task "${test%%:*}" --lang en --out "exp/decode/$test"
  done
  # What stage I hears without the LLM.
  list=$(test_list ctc:test300)
  if [ -n "$list" ]; then
    python -m wenet_osum.bin.recognize --model "$(experiment 1)/final" --list "$list" --task asr --mode ctc_greedy_search --out exp/decode/ctc:test300
  fi
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --out "exp/score/$test" \
      --report --title "Soundwave, $test"
  done
  if [ -d exp/decode/ctc:test300 ]; then
    python -m wenet_osum.bin.score --set "asr=$(test_list asr:test300),exp/decode/ctc:test300" --normalizer en:whisper_en --out exp/score/ctc:test300
  fi
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# The shape of Kimi-Audio's fine-tuning on the corpora that examples/natural prepares. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0          # first stage
stop_stage=6     # last stage
corpora_dir=     # work folder of examples/natural after its stage 1; empty: that recipe's own folder
work=            # where corpora/, data/ and exp/ go; empty: this folder
whisper=openai/whisper-base           # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct        # folder or hub name of the LLM, one with a chat template
nproc=2          # training processes
phases="1 2"     # training phases of stage 3: the adapter, then every task
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--corpora_dir DIR] [--work DIR] [--whisper DIR] [--llm DIR] [--nproc N]
  [--phases \"1 2\"] [--average_num N] [--override \"a.b=c d=e\"]
Stages: 0 corpora of examples/natural, 1 mixtures and prompts, 2 costs, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
examples=$(dirname "$here")
corpora_dir=$(realpath -m "${corpora_dir:-$examples/natural}")
for name in whisper llm; do  # a folder is made absolute, a hub name stays
  if [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
done
# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 sgc:adults sap:speechocean762 ser:ravdess ved:esc50 srwt:fsdd sttc:replies"
mkdir -p "$work"
cd "$work"
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

# The list of test set $1, nothing where it is not there.
test_list() {
  local list=corpora/${1#*:}/data/test/manifest.jsonl
  if [ -f "$list" ]; then echo "$list"; else echo "test $1 is left out: no $list" >&2; fi
}

if in_stages 0; then
  echo "stage 0: the corpora of $corpora_dir"
  python "$examples/soundwave/local/prepare.py" --data_dir "$corpora_dir" --out corpora
fi

if in_stages 1; then
  echo "stage 1: mixtures, and many prompts for every task"
  python "$here/local/prepare.py" --out data
  python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$here/conf/data_asr.yaml" --out data/asr
  python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$here/conf/data.yaml" --out data/all
fi

if in_stages 2; then
  echo "stage 2: what phase 1 costs"
  python -m wenet_osum.bin.estimate --config "$(conf_of 1)" --whisper "$whisper" --llm "$llm" --devices "$nproc"
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  for phase in $phases; do
    settings=()
    if [ "$phase" = 1 ]; then settings=(--override "model.whisper=$whisper" --override "model.llm=$llm"); fi
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
  echo "stage 5: decoding"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.recognize --model "$(experiment "${phases##* }")/final" --list "$list" --task "${test%%:*}" --lang en --out "exp/decode/$test"
  done
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --out "exp/score/$test" \
      --report --title "Kimi-Audio's shape, $test"
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

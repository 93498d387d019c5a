#!/usr/bin/env bash
# Does a published LLM need speech that CTC has brought to its words? Recognition alone, arms × seeds from the encoder of phase 1; then one table.
# Needs what run.sh has left in --work up to phase 1. README.md explains it; --help lists its options.
# shellcheck disable=SC2086,SC2154  # options and settings are words; tools/recipe.sh sets tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=3          # first stage: 3 training, 5 decoding, 6 scores and table
stop_stage=6     # last stage
work=$here       # where run.sh has worked; runs go to exp/aligned/ in it
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM
nproc=2          # processes of training
arms="none longer beside first"  # yamls of conf/aligned
seeds="1 2 3"    # each arm is trained once per seed
override=        # settings for training, e.g. "dtype=bfloat16"
decode=          # options of decoding, e.g. "--dtype bfloat16"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
phases="3"
go_to_work
. "$here/local/runs.sh"  # train, list_of

for arm in $arms; do
  for seed in $seeds; do
    run=aligned/$arm.$seed out=exp/aligned/$arm.$seed
    if in_stages 3; then
      echo "stage 3: training $run"
      encoder=model.init_parts.encoder=exp/1_whisper/final
      if [ "$arm" = first ]; then
        train "aligned/align.$seed" "$here/conf/aligned/align.yaml" asr seed="$seed" "$encoder" $override
        encoder=model.init_from=exp/aligned/align.$seed/final
      fi
      train "$run" "$here/conf/aligned/$arm.yaml" asr seed="$seed" "$encoder" $override
    fi
    if in_stages 5; then
      echo "stage 5: decoding with $run"
      python -m wenet_osum.bin.recognize --model "$out/final" --list "$(list_of :test300)" --task asr --lang en $decode --out "$out/asr"
    fi
    if in_stages 6; then
      python -m wenet_osum.bin.score --set "asr=$(list_of :test300),$out/asr" --normalizer whisper_en --resample speaker --out "$out/score"
    fi
  done
done

if in_stages 6; then
  echo "stage 6: the table"
  python "$here/local/aligned_table.py" --runs exp/aligned --arms "$arms" --seeds "$seeds" --out exp/aligned/table.md
fi

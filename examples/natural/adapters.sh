#!/usr/bin/env bash
# The adapters beside each other: phases 2 and 3 of this recipe once per adapter and seed, from the same phase 1, on the same data; then one table and its picture.
# Needs what run.sh has left in --work up to phase 1. README.md explains it; --help lists its options.
# shellcheck disable=SC2154  # settings are words; tools/recipe.sh sets tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage: 0 lists, 3 training, 5 decoding, 6 scores and table
stop_stage=6     # last stage
work=$here       # where run.sh has worked; runs go to adapters/ in it
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM
nproc=2          # processes of training
adapters="linear concat_mlp conv_transformer ctc_shrink ctc_shrink_unshrunk ctc_shrink_whole ctc_shrink_blind ctc_shrink_pool ctc_shrink_drop ctc_shrink_unaligned ctc_shrink_queries"  # yamls of conf/adapters
seeds=777        # each adapter is trained once per seed
override=        # settings for both phases, e.g. "dtype=bfloat16"
align_override=  # settings for phase 2 alone
decode=          # options of decoding, e.g. "--dtype bfloat16"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
phases="2 3"
go_to_work
# TASK:SET, each with at most 300 utterances of the official test.
tests="asr:test300 sgc:adults300 sap:test300 ser:ravdess ved:esc50_300 srwt:fsdd sttc:replies300"

. "$here/local/runs.sh"  # train, list_of

if in_stages 0; then
  echo "stage 0: the lists that adapters are compared on"
  for pair in adults:adults300 replies:replies300; do
    if [ ! -f "$(list_of ":${pair%:*}")" ]; then continue; fi
    python "$here/local/lists.py" --manifest "$(list_of ":${pair%:*}")" --keys "$here/conf/test300.txt" --out "$(list_of ":${pair#*:}")"
  done
  # Speech with sounds in it has keys of its own.
  if [ -f "$(list_of :esc50)" ]; then
    python "$here/local/lists.py" --manifest "$(list_of :esc50)" --draw 300 --out corpora/esc50_300.txt
    python "$here/local/lists.py" --manifest "$(list_of :esc50)" --keys corpora/esc50_300.txt --out "$(list_of :esc50_300)"
  fi
fi
# Corpora that run.sh has left out are not tested.
tests=$(for test in $tests; do [ ! -f "$(list_of "$test")" ] || echo "$test"; done)

for adapter in $adapters; do
  for seed in $seeds; do
    run=adapters/$adapter.$seed
    if in_stages 3; then
      echo "stage 3: training $run"
      # Paths of the yamls are those of run.sh: each run has a folder in which they lead to the same data, states and phase 1.
      mkdir -p "$run/exp"
      for name in corpora data exp/1_whisper exp/states; do ln -sfn "$work/$name" "$run/$name"; done
      cd "$run"
      # shellcheck disable=SC2086
      train 2_align "$here/conf/adapters/$adapter.yaml" all seed="$seed" model.init_parts.encoder=exp/1_whisper/final $override $align_override
      joint=$here/conf/adapters/joint.yaml
      if [ "$adapter" = ctc_shrink_queries ]; then joint=$here/conf/train_3_joint.yaml; fi
      # shellcheck disable=SC2086
      train 3_joint "$joint" all seed="$seed" $override
      cd "$work"
    fi
    if in_stages 5; then
      echo "stage 5: decoding with $run"
      for test in $tests; do
        mkdir -p "$run/exp/decode"
        # shellcheck disable=SC2086
        python -m wenet_osum.bin.recognize --model "$run/exp/3_joint/final" --list "$(list_of "$test")" --task "${test%%:*}" --lang en $decode \
          --out "$run/exp/decode/$test" 2>&1 | tee -a "$run/exp/decode/$test.log"
      done
    fi
    if in_stages 6; then
      # shellcheck disable=SC2046
      python -m wenet_osum.bin.score $(for test in $tests; do echo "--set ${test%%:*}=$(list_of "$test"),$run/exp/decode/$test"; done) \
        --normalizer en:whisper_en,zh:wenet_zh --resample speaker --out "$run/exp/score"
    fi
  done
done

if in_stages 6; then
  echo "stage 6: the table, and its picture, of all seeds that have been scored"
  python "$here/local/adapter_table.py" --runs "$work/adapters" --adapters "$adapters" --seeds "$seeds" --out "$work/adapters/table.md"
fi

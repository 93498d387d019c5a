#!/usr/bin/env bash
# The gate between phases 2 and 3: stops the recipe where CTC alone, without the LLM, makes more than $gate % word errors on the dev speakers. An LLM would
# be trained on speech that says little. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2086,SC2154  # options are words

list=corpora/speechocean762/data/dev/manifest.jsonl
if [ -n "$gate" ] && [ -f "$list" ]; then
  rm -rf exp/decode/gate  # answers of a model that has been trained further are others
  python -m wenet_osum.bin.recognize --model exp/2_align/final --list "$list" --task asr --lang en --mode ctc_greedy_search $decode --out exp/decode/gate
  python -m wenet_osum.bin.score --set "asr=$list,exp/decode/gate" --normalizer whisper_en --bar "asr/wer<=$gate" --require_bars --out exp/score/gate || {
    echo "phase 2 is not good enough (--gate $gate); train it for longer, or raise --gate" >&2
    exit 1
  }
fi

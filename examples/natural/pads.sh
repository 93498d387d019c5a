#!/usr/bin/env bash
# How much silence does an encoder need behind the speech? One model decoded with several pad_s, and one table of errors and speed.
# Needs what run.sh has left in --work up to phase 2. README.md explains it; --help lists its options.
# shellcheck disable=SC2086,SC2154  # options are words; tools/recipe.sh sets tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=5          # first stage: 5 decoding, 6 scores and table
stop_stage=6     # last stage
work=$here       # where run.sh has worked; answers go to exp/pads/ in it
model=exp/2_align/final  # model folder, from --work
pads="0 1 5 10 30"       # seconds to which shorter utterances are padded with silence
decode="--mode ctc_greedy_search"  # options of decoding

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
phases="2"
go_to_work
. "$here/local/runs.sh"  # list_of
list=$(list_of :test300)

for pad in $pads; do
  out=exp/pads/$pad
  if in_stages 5; then
    echo "stage 5: decoding with silence up to $pad s"
    python "$here/local/padded.py" --pad_s "$pad" "$model" "$out/model"
    python -m wenet_osum.bin.recognize --model "$out/model" --list "$list" --task asr --lang en $decode --out "$out/asr" 2>&1 | tee -a "$out/log"
  fi
  if in_stages 6; then
    python -m wenet_osum.bin.score --set "asr=$list,$out/asr" --normalizer whisper_en --resample speaker --out "$out/score"
  fi
done

if in_stages 6; then
  echo "stage 6: the table"
  python "$here/local/pad_table.py" --runs exp/pads --pads "$pads" --out exp/pads/table.md
fi

#!/usr/bin/env bash
# Gives natural sentences word times after phase 2, and adds them to the mixture. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2154

for split in train dev; do
  aligned=corpora/aligned/data/$split
  # average.json tells which checkpoint final is; what it has aligned already stays.
  if cmp -s exp/2_align/final/average.json "$aligned/average.json"; then continue; fi
  python "$tools/force_align.py" --model exp/2_align/final --ends voice "corpora/speechocean762/data/$split/manifest.jsonl" "$aligned/manifest.jsonl"
  cp exp/2_align/final/average.json "$aligned/"
done
cp corpora/aligned/data/train/manifest.jsonl corpora/aligned/data/train/data.list
mkdir -p corpora/aligned/data/test
: > corpora/aligned/data/test/manifest.jsonl  # no test: times that a model gave are no reference
python "$examples/multitask/local/prepare.py" --limit 60 0 --data_dir corpora --mixture "$conf/data.yaml" --out data/all

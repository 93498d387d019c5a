#!/usr/bin/env bash
# Gives natural sentences word times after phase 2, and adds them to the mixture. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2154

for split in train dev; do
  python "$tools/force_align.py" --model exp/2_align/final --ends voice "corpora/speechocean762/data/$split/manifest.jsonl" "corpora/aligned/data/$split/manifest.jsonl"
done
cp corpora/aligned/data/train/manifest.jsonl corpora/aligned/data/train/data.list
mkdir -p corpora/aligned/data/test
: > corpora/aligned/data/test/manifest.jsonl  # no test: times that a model gave are no reference
python "$examples/multitask/local/prepare.py" --limit 60 0 --data_dir corpora --mixture "$conf/data.yaml" --out data/all

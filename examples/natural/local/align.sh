#!/usr/bin/env bash
# Gives natural sentences word times after phase 2, and adds them to the mixture. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2154

python "$tools/force_align.py" --model exp/2_align/final --ends voice corpora/speechocean762/data corpora/aligned/data
cp corpora/aligned/data/train/manifest.jsonl corpora/aligned/data/train/data.list
python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$conf/data.yaml" --out data/all

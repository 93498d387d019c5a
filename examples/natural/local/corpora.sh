#!/usr/bin/env bash
# Stage 0 of this recipe: the corpora that are there, prepared in their official splits. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2154

# Transcripts in lower case, gender and age; the official test speakers stay the test set, dev is a tenth of the training speakers.
if found=$(find_corpus WAVE speechocean762); then
  python "$examples/speechocean762/local/prepare.py" --data_dir "$found" --out "$work/corpora/speechocean762/data"
  # A fixed list of 300 utterances for comparisons, and the adults, whose gender the voice tells.
  python "$here/local/lists.py" --manifest corpora/speechocean762/data/test/manifest.jsonl --keys "$here/conf/test300.txt" \
    --out corpora/test300/data/test/manifest.jsonl
  python "$here/local/lists.py" --manifest corpora/speechocean762/data/test/manifest.jsonl --age adult --out corpora/adults/data/test/manifest.jsonl
  # Sentences that no training utterance has.
  python "$here/local/lists.py" --manifest corpora/speechocean762/data/test/manifest.jsonl --unseen corpora/speechocean762/data/train/manifest.jsonl \
    --out corpora/unseen/data/test/manifest.jsonl
fi
# Emotions; the eight of the corpus, which a run without label sets of its own reads as seven (calm is neutral).
if found=$(find_corpus Actor_01 ravdess); then
  python "$examples/ravdess/local/prepare.py" --data_dir "$found" --out "$work/corpora/ravdess/data" \
    --actors train=1-12 dev=13-14 test=15-18 --emotions 8
fi
# Crying, sneezing and other sounds, put into the speech of the same split: the sounds of the test fold are never trained on.
if found=$(find_corpus meta/esc50.csv esc50) && [ -d corpora/speechocean762 ]; then
  python "$examples/esc50/local/prepare.py" --data_dir "$found" --out "$work/corpora/sounds/data" --rest other
  python "$tools/add_events.py" --jobs "$nproc" --events corpora/sounds/data --wav_dir "$work/corpora/esc50/wav" \
    corpora/speechocean762/data corpora/esc50/data
fi
# Strings of digits with exact word times, from the official takes.
if found=$(find_corpus recordings fsdd); then
  read -r train dev test <<<"$digits"
  python "$examples/fsdd/local/prepare.py" --data_dir "$found" --out "$work/corpora/fsdd/data" \
    --train_strings "$train" --dev_strings "$dev" --test_strings "$test"
fi
# Mandarin words of one speaker, tested on the other; two small English sets that are only tested on.
if found=$(find_corpus cmn_words/index.jsonl cmn); then
  python "$here/local/prepare.py" --set cmn --data_dir "$found" --out "$work/corpora/cmn/data"
fi
for name in en_word_times mfa_styles; do
  if found=$(find_corpus "$name/index.jsonl" "$name"); then
    python "$here/local/prepare.py" --set "$name" --data_dir "$found/$name" --out "corpora/$name/data"
  fi
done

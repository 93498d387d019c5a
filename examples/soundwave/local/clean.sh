#!/usr/bin/env bash
# Training sets without what the published Whisper does not hear. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2086,SC2154

for name in $cleaned; do
  if [ ! -d "corpora/$name" ]; then continue; fi
  clean=corpora/clean_$name/data
  mkdir -p "$clean/train"
  for split in dev test; do ln -sfn "$(realpath "corpora/$name/data/$split")" "$clean/$split"; done
  # A first pass over the training set; one that was stopped goes on.
  python "$tools/decode_whisper.py" --model "$whisper" --list "corpora/$name/data/train/manifest.jsonl" --language en --threads "$nproc" --out "exp/first_pass/$name"
  # Transcripts it does not hear are not learned from.
  python "$tools/filter_by_wer.py" --hyp "exp/first_pass/$name" --normalizer whisper_en $rules "corpora/$name/data/train/manifest.jsonl" "$clean/train/manifest.jsonl"
  python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest "$clean/train/manifest.jsonl" "$clean/train/shards" "$clean/train/data.list"
  # The same speech with sounds in it that the transcript names where they are, [cry]: CTC learns to keep what it would else leave out as a blank.
  if [ -d corpora/sounds ]; then
    python "$tools/add_events.py" --in_text --jobs "$nproc" --events corpora/sounds/data --wav_dir "$work/corpora/sounds_in_$name/wav" \
      "$clean" "corpora/sounds_in_$name/data"
    cp "corpora/sounds_in_$name/data/train/manifest.jsonl" "corpora/sounds_in_$name/data/train/data.list"
  fi
done

#!/usr/bin/env bash
# What the published models do by themselves. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2154

# Whisper's own decoder on the lists of recognition: the row to compare with.
for test in asr:test300 asr:en_word_times asr:mfa_styles; do
  list=$(test_list "$test")
  if [ -z "$list" ]; then continue; fi
  python "$tools/decode_whisper.py" --model "$whisper" --list "$list" --language en --threads "$nproc" --out "exp/whisper/$test"
  python -m wenet_osum.bin.score --set "asr=$list,exp/whisper/$test" --normalizer whisper_en --resample speaker --out "exp/whisper/$test/score"
done
# How much of each label the frozen encoder's states hold: a linear probe on the same lists.
python "$here/local/probe.py" --whisper "$whisper" --corpora corpora --threads "$nproc" --out exp/probe

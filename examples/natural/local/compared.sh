#!/usr/bin/env bash
# What stage 5 decodes, and scores, to compare with. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2086,SC2154  # options are words

# CTC alone, without the LLM, and the cascades that STTC is compared with: our transcript or Whisper's, then the text LLM.
if [ -f corpora/test300/data/test/manifest.jsonl ]; then
  python -m wenet_osum.bin.recognize --model exp/2_align/final --list corpora/test300/data/test/manifest.jsonl --task asr \
    --mode ctc_greedy_search $decode --out exp/decode/ctc:test300
fi
# The same answers, scored on sentences that training does not have.
if [ -f corpora/unseen/data/test/manifest.jsonl ]; then
  python -m wenet_osum.bin.score --set asr=corpora/unseen/data/test/manifest.jsonl,exp/decode/asr:speechocean762 --normalizer whisper_en \
    --resample speaker --out exp/score/asr:unseen
fi
if [ -d corpora/replies ]; then
  python "$tools/decode_whisper.py" --model "$whisper" --list corpora/replies/data/test/manifest.jsonl --language en --threads "$nproc" --out exp/whisper/asr:replies
  python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" --hyp exp/whisper/asr:replies corpora/replies/data/test/manifest.jsonl exp/decode/whisper_cascade:replies
  python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" --hyp exp/decode/asr:speechocean762 corpora/replies/data/test/manifest.jsonl exp/decode/cascade:replies
  for share in 0.1 0.2; do  # the ceiling: true transcripts with so many wrong words
    python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" --wrong_words "$share" corpora/replies/data/test/manifest.jsonl "exp/decode/wrong$share:replies"
  done
  for answers in cascade whisper_cascade wrong0.1 wrong0.2; do
    python -m wenet_osum.bin.score --set "sttc=corpora/replies/data/test/manifest.jsonl,exp/decode/$answers:replies" --resample speaker --out "exp/score/$answers:replies"
  done
fi
# What is left of the LLM's answers to text; exit status 3 where more is lost than --text_growth allows.
python "$tools/text_check.py" --model "exp/$last/final" --threads "$nproc" ${text_growth:+--max_growth "$text_growth"} --out exp/text

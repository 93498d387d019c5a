#!/usr/bin/env bash
# The tokens that CTC may spell with. To be sourced by run.sh, and by other recipes that train phases of this one; their variables are read.
# shellcheck disable=SC2154

# Writes the classes for the transcripts of $1/asr: Whisper's tokens, for phase 1, and the LLM's, from phase 2 on.
ctc_classes() {
  local transcripts=$1/asr/train/manifest.jsonl
  python "$tools/make_ctc_classes.py" --tokenizer "$whisper" --lowercase --list "$transcripts" --out "$1/ctc_classes_whisper.json"
  python "$tools/make_ctc_classes.py" --tokenizer "$llm" --lowercase --list "$transcripts" --out "$1/ctc_classes.json"
}

#!/usr/bin/env bash
# Where corpora and test sets lie. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2034,SC2154

# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 asr:en_word_times asr:mfa_styles sgc:adults sap:speechocean762 ser:ravdess ved:esc50
  srwt:fsdd srwt:en_word_times srwt:cmn sttc:replies"

# The folder of --corpora, or in one of them, that holds $1; says so where there is none, and that $2 is left out.
find_corpus() {
  local folder found
  for folder in $corpora; do
    for found in "$folder/$1" "$folder"/*/"$1"; do
      if [ -e "$found" ]; then echo "${found%"/$1"}"; return; fi
    done
  done
  echo "$2 is left out: no $1 in $corpora" >&2
  return 1
}

# The list of test set $1, nothing where it is not there.
test_list() {
  local list=corpora/${1#*:}/data/test/manifest.jsonl
  if [ -f "$list" ]; then echo "$list"; else echo "test $1 is left out: no $list" >&2; fi
}

# Prints the options of decoding TASK:SET: a label query hears of a voice what the LLM has not learned to read, so both choose a label together; and
# CTC knows better when words are spoken.
task_options() {
  case ${1%%:*} in
    ser | sgc | sap | ved) echo "--rescore label_queries=$label_weight" ;;
    srwt) echo "--word_times ctc" ;;
  esac
}

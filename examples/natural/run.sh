#!/usr/bin/env bash
# A published Whisper and a published Qwen become one model that hears, on natural speech. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
corpora=         # folders that hold the official downloads, the first that has a corpus wins; empty: downloads/ in the work folder, filled by stage -1
work=            # where corpora/, data/ and exp/ go; empty: this folder
whisper=openai/whisper-base           # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct        # folder or hub name of the LLM, one with a chat template
nproc=2          # training processes
phases="1 2 3"   # training phases of stage 3: Whisper by itself, alignment without the LLM, all tasks together
digits="600 60 300"  # strings joined from fsdd's digits: of training, dev and test
replies=true     # false: no replies of the LLM to the transcripts, and no STTC
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--corpora \"DIR …\"] [--work DIR] [--whisper DIR] [--llm DIR] [--nproc N]
  [--phases \"1 2 3\"] [--digits \"TRAIN DEV TEST\"] [--replies true|false] [--average_num N] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
# shellcheck disable=SC2086  # folders are words
corpora=$(realpath -m ${corpora:-"$work/downloads"} | tr '\n' ' ')
for name in whisper llm; do  # a folder is made absolute, a hub name stays
  if [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
done
# shellcheck disable=SC2034  # tools/recipe.sh reads them: models are published ones, named where a phase loads them
size=published published=
tools=$WENET_OSUM_ROOT/tools
examples=$(dirname "$here")
trained="speechocean762 ravdess esc50 fsdd cmn"  # corpora with a training set
# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 asr:en_word_times asr:mfa_styles sgc:adults sap:speechocean762 ser:ravdess ved:esc50
  srwt:fsdd srwt:en_word_times srwt:cmn sttc:replies"
mkdir -p "$work"
cd "$work"
# shellcheck source=../../tools/recipe.sh
. "$tools/recipe.sh"

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

# The mixture of the rows of $1 that are prepared, with its dev lists, as $2/data.yaml.
mixture() {
  python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$here/conf/$1" --out "$2"
}

# The list of test set $1, nothing where it is not there.
test_list() {
  local list=corpora/${1#*:}/data/test/manifest.jsonl
  if [ -f "$list" ]; then echo "$list"; else echo "test $1 is left out: no $list" >&2; fi
}

if in_stages -1; then
  echo "stage -1: downloading what is not there, as the recipes of the corpora do"
  if [ "$corpora" = "$work/downloads " ]; then
    for name in speechocean762 ravdess esc50 fsdd; do
      bash "$examples/$name/run.sh" --stage -1 --stop_stage -1 --data_dir "downloads/$name" --work downloads
    done
  fi
fi

if in_stages 0; then
  echo "stage 0: preparing the corpora in their official splits"
  # Transcripts in lower case, gender and age; the official test speakers stay the test set, dev is a tenth of the training speakers.
  if found=$(find_corpus WAVE speechocean762); then
    python "$examples/speechocean762/local/prepare.py" --data_dir "$found" --out "$work/corpora/speechocean762/data"
    # A fixed list of 300 utterances for comparisons, and the adults, whose gender the voice tells.
    python "$here/local/lists.py" --manifest corpora/speechocean762/data/test/manifest.jsonl --keys "$here/conf/test300.txt" \
      --out corpora/test300/data/test/manifest.jsonl
    python "$here/local/lists.py" --manifest corpora/speechocean762/data/test/manifest.jsonl --age adult --out corpora/adults/data/test/manifest.jsonl
  fi
  # Emotions; the eight of the corpus, which a run without label sets of its own reads as seven (calm is neutral).
  if found=$(find_corpus Actor_01 ravdess); then
    python "$examples/ravdess/local/prepare.py" --data_dir "$found" --out "$work/corpora/ravdess/data" \
      --actors train=1-12 dev=13-14 test=15-18 --emotions 8
  fi
  # Crying, sneezing and other sounds, put into the speech of the same split: the sounds of the test fold are never trained on.
  if found=$(find_corpus meta/esc50.csv esc50) && [ -d corpora/speechocean762 ]; then
    python "$examples/esc50/local/prepare.py" --data_dir "$found" --out "$work/corpora/sounds/data" --rest other
    for split in train dev test; do
      python "$tools/add_events.py" --jobs "$nproc" --events "corpora/sounds/data/$split/manifest.jsonl" --wav_dir "$work/corpora/esc50/wav/$split" \
        "corpora/speechocean762/data/$split/manifest.jsonl" "corpora/esc50/data/$split/manifest.jsonl"
    done
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
fi

if in_stages 1; then
  echo "stage 1: packing, replies, and the mixtures"
  for name in $trained; do
    if [ ! -d "corpora/$name" ]; then continue; fi
    python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" --manifest "corpora/$name/data/train/manifest.jsonl" \
      "corpora/$name/data/train/shards" "corpora/$name/data/train/data.list"
    python "$tools/check_data_list.py" --list "corpora/$name/data/train/data.list"
  done
  # Nobody has written answers to these sentences: the text LLM itself gives them, and speech learns to ask for the same (distillation).
  if [ "$replies" = true ] && [ -d corpora/speechocean762 ]; then
    for split in train dev test; do
      python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" "corpora/speechocean762/data/$split/manifest.jsonl" "corpora/replies/data/$split/manifest.jsonl"
    done
    cp corpora/replies/data/train/manifest.jsonl corpora/replies/data/train/data.list  # a plain list: the audio is packed once already
  fi
  # Recognition alone, for phases 1 and 2; every task for phase 3. What is not prepared is named and left out.
  mixture data_asr.yaml data/asr
  mixture data.yaml data/all
fi

if in_stages 2; then
  echo "stage 2: what the published models do by themselves, and the classes of CTC"
  # Whisper's own decoder on the lists of recognition: the row to compare with.
  for test in asr:test300 asr:en_word_times asr:mfa_styles; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python "$tools/decode_whisper.py" --model "$whisper" --list "$list" --language en --threads "$nproc" --out "exp/whisper/$test"
    python -m wenet_osum.bin.score --set "asr=$list,exp/whisper/$test" --normalizer whisper_en --resample speaker --out "exp/whisper/$test/score"
  done
  # How much of each label the frozen encoder's states hold: a linear probe on the same lists.
  python "$here/local/probe.py" --whisper "$whisper" --corpora corpora --threads "$nproc" --out exp/probe
  # The LLM's tokens that CTC may spell the transcripts with.
  python "$tools/make_ctc_classes.py" --tokenizer "$llm" --lowercase --list data/asr/train/manifest.jsonl --out data/ctc_classes.json
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  for phase in $phases; do
    case $phase in
      1|2) phases=$phase train_phases data/asr/data.yaml ;;
      *) phases=$phase train_phases data/all/data.yaml ;;
    esac
    average "$phase"
    if [ "$phase" = 1 ] && [ -d corpora/speechocean762 ]; then
      # Words of natural sentences get times by forced alignment with the CTC head of phase 1; only training and dev use them.
      for split in train dev test; do
        python "$tools/force_align.py" --model "$(experiment 1)/final" "corpora/speechocean762/data/$split/manifest.jsonl" "corpora/aligned/data/$split/manifest.jsonl"
      done
      cp corpora/aligned/data/train/manifest.jsonl corpora/aligned/data/train/data.list
      mixture data.yaml data/all
    fi
  done
fi

model=$(experiment "${phases##* }")/final
if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the last phase"
  average "${phases##* }"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.recognize --model "$model" --list "$list" --task "${test%%:*}" --lang en --out "exp/decode/$test"
  done
  # CTC alone, without the LLM, and the cascades that STTC is compared with: a transcript, then the text LLM.
  if [ -f corpora/test300/data/test/manifest.jsonl ]; then
    python -m wenet_osum.bin.recognize --model "$(experiment 2)/final" --list corpora/test300/data/test/manifest.jsonl --task asr \
      --mode ctc_greedy_search --out exp/decode/ctc:test300
  fi
  if [ -d corpora/replies ]; then
    python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" --hyp exp/decode/asr:speechocean762 corpora/replies/data/test/manifest.jsonl exp/decode/cascade:replies
    for share in 0.1 0.2; do  # the ceiling: true transcripts with so many wrong words
      python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" --wrong_words "$share" corpora/replies/data/test/manifest.jsonl "exp/decode/wrong$share:replies"
    done
  fi
fi

if in_stages 6; then
  echo "stage 6: scoring; intervals resample speakers, for the figures are to hold for other speakers"
  for test in $tests; do
    list=$(test_list "$test")
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --resample speaker \
      --out "exp/score/$test" --report --title "Natural speech, $test"
  done
  for answers in cascade wrong0.1 wrong0.2; do
    if [ ! -d "exp/decode/$answers:replies" ]; then continue; fi
    python -m wenet_osum.bin.score --set "sttc=corpora/replies/data/test/manifest.jsonl,exp/decode/$answers:replies" --resample speaker \
      --out "exp/score/$answers:replies"
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

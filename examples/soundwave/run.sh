#!/usr/bin/env bash
# Soundwave's three phases on the corpora that examples/natural prepares. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2086,SC2154  # options and settings are words; tools/recipe.sh sets last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage
stop_stage=6     # last stage
corpora_dir=$here/../natural    # work folder of examples/natural after its stage 1
work=$here       # where corpora/, data/ and exp/ go
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM, one with a chat template
nproc=2          # training processes
phases="1 2 3"   # training phases of stage 3: CTC alone, shrinking with LoRA, answers
cleaned=speechocean762          # corpora that a first pass of the Whisper cleans
rules="--max_wer 30 --min_s 1"  # of tools/filter_by_wer.py; the paper has 10 % and 3 s, with Whisper-medium
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
decode=          # options of decoding, e.g. "--dtype bfloat16 --batch_size 32" on a CPU that multiplies bfloat16

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf examples=$(dirname "$here")
name_phases
go_to_work corpora_dir
. "$examples/natural/local/sets.sh"  # test_list
# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 asr:en_word_times sgc:adults sap:speechocean762 ser:ravdess ved:esc50 srwt:fsdd sttc:replies"

if in_stages 0; then
  echo "stage 0: the corpora of $corpora_dir"
  python "$here/local/prepare.py" --data_dir "$corpora_dir" --out corpora
fi

if in_stages 1; then
  echo "stage 1: what the published Whisper hears as it is written, and the mixtures"
  . "$here/local/clean.sh"  # a first pass, the filter, packing
  # Recognition alone for phase 1; every task, rare ones more with every epoch, for 2; answers in several forms for 3.
  for mixture in asr:data_asr.yaml all:data.yaml sft:data_sft.yaml; do
    python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$conf/${mixture#*:}" --out "data/${mixture%:*}"
  done
fi

if in_stages 2; then
  echo "stage 2: the LLM's tokens that CTC may spell the transcripts with"
  python "$tools/make_ctc_classes.py" --tokenizer "$llm" --lowercase --list data/asr/train/manifest.jsonl --out data/ctc_classes.json
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  cp "$here/local/prompts.yaml" data/prompts.yaml  # questions of the last phase
  for phase in $phases; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" --exp_dir "exp/$phase" \
      --whisper "$whisper" --llm "$llm" --override $override
    python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num "$average_num" --out "exp/$phase/final"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the last phase"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode best --num "$average_num" --out "exp/$last/final"
fi

if in_stages 5; then
  echo "stage 5: decoding; each run reports the LLM tokens per second of speech"
  for test in $tests; do
    list=$(test_list "$test")
    [ -z "$list" ] || python -m wenet_osum.bin.recognize --model "exp/$last/final" --list "$list" --task "${test%%:*}" --lang en $decode --out "exp/decode/$test"
  done
  # What phase 1 hears without the LLM.
  list=$(test_list asr:test300)
  [ -z "$list" ] || python -m wenet_osum.bin.recognize --model exp/1_align/final --list "$list" --task asr --mode ctc_greedy_search $decode --out exp/decode/ctc:test300
fi

if in_stages 6; then
  echo "stage 6: scoring; intervals resample speakers"
  for test in $tests; do
    list=$(test_list "$test") out=exp/score/$test
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --resample speaker \
      --out "$out" --report --title "Soundwave, $test"
    if [ "${test%%:*}" = asr ]; then
      python "$tools/make_task_lists.py" --tasks asr "$list" "$out"
      python "$tools/compute-wer.py" --char=1 --v=1 "$out/asr.text" "exp/decode/$test/text" | tee "$out/wer" | tail -n 8
    fi
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# The shape of Kimi-Audio's fine-tuning on the corpora that examples/natural prepares. README.md explains the recipe; --help lists its options.
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
phases="1 2"     # training phases of stage 3: the adapter, then every task
conversations=   # folder with train.jsonl and test.jsonl in Kimi-Audio's form; empty: made of the corpora
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
decode=          # options of decoding, e.g. "--dtype bfloat16 --batch_size 32" on a CPU that multiplies bfloat16

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf examples=$(dirname "$here")
name_phases
go_to_work corpora_dir conversations
. "$examples/natural/local/sets.sh"  # test_list
# What is tested, TASK:SET; a set is corpora/SET/data/test/manifest.jsonl, and is passed over where it is not there.
tests="asr:speechocean762 asr:test300 sgc:adults sap:speechocean762 ser:ravdess ved:esc50 srwt:fsdd sttc:replies"

if in_stages 0; then
  echo "stage 0: the corpora of $corpora_dir, and many prompts for every task"
  python "$examples/soundwave/local/prepare.py" --data_dir "$corpora_dir" --out corpora
  python "$here/local/prepare.py" --out data
fi

if in_stages 1; then
  echo "stage 1: the mixtures, and conversations"
  # Recognition alone for phase 1, every task for phase 2. What is not prepared is named and left out.
  for mixture in asr:data_asr.yaml all:data.yaml; do
    python "$examples/multitask/local/prepare.py" --data_dir corpora --mixture "$conf/${mixture#*:}" --out "data/${mixture%:*}"
  done
  # Conversations in Kimi-Audio's form, yours or of the corpora, packed as any corpus of that form is.
  talk=${conversations:-data/talk}
  python "$here/local/conversations.py" --data_dir corpora --prompts data/prompts.yaml --out "$talk" ${conversations:+--given} \
    --mixture data/all/data.yaml --list data/talk/train.list
  rm -f data/talk/{train,test}.list
  for split in train test; do
    [ ! -f "$talk/$split.jsonl" ] || python "$tools/convert_manifest.py" --from kimi_audio --to shard "$talk/$split.jsonl" "data/talk/$split.list"
  done
fi

if in_stages 2; then
  echo "stage 2: what phase 1 costs"
  python -m wenet_osum.bin.estimate --config "$conf/train_1_adapter.yaml" --whisper "$whisper" --llm "$llm" --devices "$nproc"
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
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
  echo "stage 5: decoding"
  for test in $tests; do
    list=$(test_list "$test")
    [ -z "$list" ] || python -m wenet_osum.bin.recognize --model "exp/$last/final" --list "$list" --task "${test%%:*}" --lang en $decode --out "exp/decode/$test"
  done
  . "$here/local/talk.sh"  # the last turn of each conversation, given the earlier ones; scored as well
fi

if in_stages 6; then
  echo "stage 6: scoring; intervals resample speakers"
  for test in $tests; do
    list=$(test_list "$test") out=exp/score/$test
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --resample speaker \
      --out "$out" --report --title "The shape of Kimi-Audio, $test"
    if [ "${test%%:*}" = asr ]; then
      python "$tools/make_task_lists.py" --tasks asr "$list" "$out"
      python "$tools/compute-wer.py" --char=1 --v=1 "$out/asr.text" "exp/decode/$test/text" | tee "$out/wer" | tail -n 8
    fi
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

#!/usr/bin/env bash
# A published Whisper and a published Qwen become one model that hears, on natural speech. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
corpora=         # folders that hold the official downloads, the first that has a corpus wins; empty: downloads/ in the work folder, filled by stage -1
work=$here       # where corpora/, data/ and exp/ go
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM, one with a chat template
nproc=2          # training processes
phases="1 2 3"   # training phases of stage 3: Whisper by itself, alignment without the LLM, all tasks together
digits="600 60 300"  # strings joined from fsdd's digits: of training, dev and test
replies=true     # false: no replies of the LLM to the transcripts, and no STTC
label_weight=0.5 # weight of the label queries where a label is chosen; the LLM has the rest
gate=60          # word errors of CTC alone on dev after phase 2, %, above which phase 3 does not begin; empty: any
text_growth=     # times that the perplexity of the LLM's replies to text may grow at most, e.g. 1.5; empty: it is told
average_num=1    # checkpoints averaged
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"
decode=          # options of decoding, e.g. "--dtype bfloat16 --batch_size 32" on a CPU that multiplies bfloat16

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf examples=$(dirname "$here")
name_phases
corpora=$(cd "${RUN_FROM:-$PWD}" && realpath -m ${corpora:-"$work/downloads"} | tr '\n' ' ')
go_to_work
. "$here/local/sets.sh"  # find_corpus, test_list, task_options; tests: what is decoded and scored

if in_stages -1; then
  echo "stage -1: downloading what is not there, as the recipes of the corpora do"
  [ "$corpora" != "$work/downloads " ] || for name in speechocean762 ravdess esc50 fsdd; do
    bash "$examples/$name/run.sh" --stage -1 --stop_stage -1 --data_dir "$work/downloads/$name" --work "$work/downloads"
  done
fi

if in_stages 0; then
  echo "stage 0: preparing the corpora in their official splits"
  . "$here/local/corpora.sh"  # a command or two per corpus
fi

if in_stages 1; then
  echo "stage 1: packing, replies, and the mixtures"
  for data in $(ls -d corpora/{speechocean762,ravdess,esc50,fsdd,cmn}/data 2>/dev/null); do
    python "$tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
      --manifest "$data/train/manifest.jsonl" "$data/train/shards" "$data/train/data.list"
  done
  # Nobody has written answers to these sentences: the text LLM itself gives them, and speech learns to ask for the same (distillation).
  if [ "$replies" = true ] && [ -d corpora/speechocean762 ]; then
    python "$tools/make_replies.py" --llm "$llm" --threads "$nproc" corpora/speechocean762/data corpora/replies/data
    cp corpora/replies/data/train/manifest.jsonl corpora/replies/data/train/data.list  # a plain list: the audio is packed once already
  fi
  # Recognition alone, for phase 1; every task for phases 2, which learns words and labels of all of them, and 3. What is not prepared is named and left out; dev has 60 utterances per task.
  for mixture in asr:data_asr.yaml all:data.yaml; do
    python "$examples/multitask/local/prepare.py" --limit 60 0 --data_dir corpora --mixture "$conf/${mixture#*:}" --out "data/${mixture%:*}"
  done
fi

if in_stages 2; then
  echo "stage 2: what the published models do by themselves, and the classes of CTC"
  . "$here/local/published.sh"  # Whisper's own decoder and linear probes
  . "$here/local/classes.sh"; ctc_classes data
fi

if in_stages 3; then
  echo "stage 3: training phases $phases; before each what it costs, counted"
  for phase in $phases; do
    mixture=$(case $phase in 1*) echo asr ;; *) echo all ;; esac)
    encoder=$([ "$phase" != 2_align ] || [ ! -d exp/1_whisper/final ] || echo model.init_parts.encoder=exp/1_whisper/final)
    python -m wenet_osum.bin.estimate --config "$conf/train_$phase.yaml" --whisper "$whisper" --llm "$llm" --seconds 3.7 --override $encoder $override
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "data/$mixture/data.yaml" --exp_dir "exp/$phase" --whisper "$whisper" --llm "$llm" --override $encoder $override
    python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num "$average_num" --out "exp/$phase/final"
    # A gate on what CTC alone hears; then it gives the words of natural sentences times, for training and dev.
    if [ "$phase" = 2_align ] && [ -d corpora/speechocean762 ]; then . "$here/local/gate.sh"; . "$here/local/align.sh"; fi
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
    [ -z "$list" ] || python -m wenet_osum.bin.recognize --model "exp/$last/final" --list "$list" --task "${test%%:*}" --lang en $(task_options "$test") $decode --out "exp/decode/$test"
  done
  . "$here/local/compared.sh"  # CTC alone, cascades (a transcript, then the text LLM), and what text is kept; scored as well
fi

if in_stages 6; then
  echo "stage 6: scoring; intervals resample speakers, for the figures are to hold for other speakers"
  for test in $tests; do
    list=$(test_list "$test") out=exp/score/$test
    if [ -z "$list" ]; then continue; fi
    python -m wenet_osum.bin.score --set "${test%%:*}=$list,exp/decode/$test" --normalizer en:whisper_en,zh:wenet_zh --resample speaker \
      --out "$out" --report --title "Natural speech, $test"
    if [ "${test%%:*}" = asr ]; then
      python "$tools/make_task_lists.py" --tasks asr "$list" "$out"
      python "$tools/compute-wer.py" --char=1 --v=1 "$out/asr.text" "exp/decode/$test/text" | tee "$out/wer" | tail -n 8
    fi
  done
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

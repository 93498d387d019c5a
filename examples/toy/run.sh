#!/usr/bin/env bash
# The toy recipe: a synthesized corpus in two languages, eight tasks, four phases, one report, on two CPU cores. README.md explains it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=0
stop_stage=6
nproc=2          # processes that train, and that decode
phases="1 2 3 4" # phases of stage 3
last=4_llm       # the model that is decoded and scored; 4_lora: phase 4 with LoRA in the frozen LLM
average_num=1    # checkpoints averaged
work=            # where data/ and exp/ go; empty: this folder
seed=1           # of the corpus
rescore=ctc_prefix=0.3,word_times=0.5  # of decoding asr and srwt: weights of the adapter's CTC in transcripts and of its frames in word times, chosen on dev
closer=true      # also look closer: every wording, labels not limited, beams, long recordings, worse sound
mini=false       # true: a tenth of the corpus and ten steps a phase, to see that everything runs
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--phases \"1 2 3 4\"] [--last 4_llm|4_lora] [--work DIR] [--nproc N]
  [--average_num N] [--seed N] [--rescore NAME=WEIGHT,…] [--closer false] [--mini true]
Stages: 0 prepare, 1 check and pack, 2 initial models, 3 train, 4 average, 5 decode, 6 score and report; there is nothing to download (-1)"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
work=$(realpath -m "${work:-$here}")
mkdir -p "$work"
cd "$work"
tools=$WENET_OSUM_ROOT/tools
tasks="asr srwt ved ser ssr sgc sap sttc"
conditions="clean noise_10db reverb_0.3s telephone"  # of worse sound
prepare_options=() small=() overrides=()
if [ "$mini" = true ]; then
  prepare_options=(--mini)
  small=(--override llm.epochs=0.2)
  overrides=(--override max_epochs=null --override max_steps=10 --override optim.warmup_steps=2 --override eval_every=10 --override log_every=5)
fi

# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

# A whole run says at the start how long it will take here, the default one and a mini one: work in TFLOP, and seconds of one core besides
# (RESULTS.md has what they were measured on).
machine=
if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 6 ]; then
  foreseen=$(python "$tools/machine_speed.py" --processes "$nproc" --run "the default run" 41 1000 --run "a run with --mini true" 2 200)
  machine=${foreseen%%$'\n'*}
  echo "$foreseen"
fi

# Trains exp/$1 as conf/train_$1.yaml says.
train() {
  local data=data.yaml
  if [ "$1" = 1_whisper ]; then data=data_1.yaml; fi
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$here/conf/train_$1.yaml" \
    --data "$here/conf/$data" --exp_dir "exp/$1" "${overrides[@]}"
}

if in_stages 0; then
  echo "stage 0: synthesizing the corpus"
  python "$here/local/prepare.py" --out data --seed "$seed" --jobs "$nproc" "${prepare_options[@]}"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  python "$tools/make_shard_list.py" --shuffle --num_threads "$nproc" --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$tools/check_data_list.py" --list data/train/data.list
  python "$tools/make_task_lists.py" --tasks "$tasks" --limit 60 data/dev/manifest.jsonl data/dev
  python "$tools/make_task_lists.py" --tasks "$tasks" --limit 240 data/test/manifest.jsonl data/test
  if [ "$closer" = true ]; then
    python "$tools/make_long_list.py" data/test/srwt.list data/long
    # shellcheck disable=SC2086  # the conditions are words
    python "$tools/make_robust_lists.py" --only $conditions --jobs "$nproc" data/test/asr.list data/robust
  fi
fi

if in_stages 2; then
  echo "stage 2: making the initial models"
  make_models data/text/train.txt data/train/manifest.jsonl "$here/conf/models.yaml" "${small[@]}"
fi

if in_stages 3; then
  for phase in $phases; do
    name=$last
    if [ "$phase" != 4 ]; then name=$(basename "$(echo "$here"/conf/train_"$phase"_*.yaml)" .yaml); fi
    echo "stage 3: training phase $phase"
    train "${name#train_}"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the last $average_num checkpoints of $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode last --num "$average_num" --out "exp/$last/average"
fi

# What is decoded, a command each; the longest first, so that no process waits for another in the end. Transcripts alone and times are decoded
# jointly: what the adapter's CTC and frames tell weighs in beside the LLM.
decodings() {
  local task condition decode="recognize --model exp/$last/average" joint="--plugins wenet_osum.small --rescore $rescore"
  if [ "$closer" = true ]; then
    echo "$decode --list data/test/ser.list --task ser --prompts all --out exp/$last/closer/prompts"
    echo "$decode --list data/long/manifest.jsonl --task srwt $joint --longest_s 3 --out exp/$last/closer/long"
    echo "$decode --list data/test/asr.list --task asr $joint --num_beams 4 --out exp/$last/closer/beams"
    for condition in $conditions; do echo "$decode --list data/robust/$condition.jsonl --task asr $joint --out exp/$last/closer/robust/$condition"; done
    echo "$decode --list data/test/ser.list --task ser --free --out exp/$last/closer/free"
    echo "$decode --list data/test/srwt.list --task srwt --out exp/$last/closer/llm"
  fi
  for task in asr srwt; do echo "$decode --list data/test/$task.list --task $task $joint --out exp/$last/decode/$task"; done
  for task in ${tasks#asr srwt }; do echo "$decode --list data/test/$task.list --task $task --out exp/$last/decode/$task"; done
}

# How what the closer look decoded is scored, a page each.
closer_scores() {
  local condition out=exp/$last/closer
  echo "score --report --set ser=data/test/ser.list,$out/prompts --compare $out/free --out $out/score/prompts \
    --title 'Toy recipe: every wording, and labels limited to their set against free ones'"
  echo "score --report --set asr=data/test/asr.list,exp/$last/decode/asr --compare $out/beams --out $out/score/beams \
    --title 'Toy recipe: greedy against 4 beams'"
  echo "score --report --set srwt=data/test/srwt.list,exp/$last/decode/srwt --compare $out/llm --out $out/score/joint \
    --title 'Toy recipe: CTC and frames beside the LLM against the LLM alone'"
  echo "score --report --set srwt=data/long/manifest.jsonl,$out/long --out $out/score/long --title 'Toy recipe: long recordings'"
  for condition in $conditions; do
    echo "score --report --set asr=data/robust/$condition.jsonl,$out/robust/$condition --out $out/score/robust/$condition \
      --title 'Toy recipe: $condition'"
  done
}

if in_stages 5; then
  echo "stage 5: decoding"
  decodings | python "$tools/run_commands.py" --jobs "$nproc"
fi

if in_stages 6; then
  echo "stage 6: scoring"
  if [ "$closer" = true ]; then
    closer_scores | python "$tools/run_commands.py" --jobs "$nproc"
    python "$tools/robust_table.py" --conditions data/robust/conditions --out "exp/$last/closer/score/robust.md" "exp/$last/closer/score/robust"
  fi
  sets=()
  for task in $tasks; do sets+=(--set "$task=data/test/$task.list,exp/$last/decode/$task"); done
  python -m wenet_osum.bin.score "${sets[@]}" --train_list data/train/manifest.jsonl --out "exp/$last/score" --report \
    --title "Toy recipe, eight tasks" --exp exp/1_whisper exp/2_adapter exp/3_encoder "exp/$last" \
    --bar 'asr/wer/en<=8' --bar 'asr/cer/zh<=8' --bar 'ved/accuracy>=90' --bar 'sgc/accuracy>=90' --bar 'sap/accuracy>=90' \
    --bar 'ser/accuracy>=80' --bar 'ssr/accuracy>=80' --bar 'sttc/exact_match>=90' --bar 'srwt/within_100ms/all>=90'
  echo "report: $work/exp/$last/score/report.html"
  if [ "$closer" = true ]; then echo "a closer look at wordings, labels, beams, long recordings and worse sound: $work/exp/$last/closer/score"; fi
  echo "training curves: tensorboard --logdir $work/exp"
  if [ -n "$machine" ]; then echo "it took $((SECONDS / 60)) min $((SECONDS % 60)) s on $machine"; fi
fi

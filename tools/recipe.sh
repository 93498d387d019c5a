#!/usr/bin/env bash
# What the stages of recipes have in common. To be sourced after parse_options.sh, in the recipe's work folder, with these set:
# here (the recipe's folder), stage, stop_stage, nproc, phases, average_num, override. Recipes whose models are chosen with --size also set size,
# whisper, llm and published (settings of the phases when the models are published ones), and call choose_models.

in_stages() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]
}

# The configuration of phase $1, in conf/ of the recipe or where choose_models says. Of several the last: LoRA comes after the full LLM.
conf_of() {
  local found=("${confs:-$here/conf}"/train_"$1"*.yaml)
  echo "${found[-1]}"
}

# The folder of phase $1, e.g. exp/1_whisper for conf/train_1_whisper.yaml.
experiment() {
  basename "$(conf_of "$1")" .yaml | sed 's/^train_/exp\//'
}

# Averages the best checkpoints of phase $1: what the next phase, or decoding, starts from.
average() {
  python -m wenet_osum.bin.average --exp_dir "$(experiment "$1")" --mode best --num "$average_num" --out "$(experiment "$1")/final"
}

# Trains all phases on the mixture $1, averaging in between.
train_phases() {
  local overrides=() setting phase
  for phase in $phases; do
    overrides=()
    model_overrides "$phase"
    for setting in $override; do overrides+=(--override "$setting"); done
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$(conf_of "$phase")" \
      --data "$1" --exp_dir "$(experiment "$phase")" "${overrides[@]}"
    if [ "$phase" != "${phases##* }" ]; then average "$phase"; fi
  done
}

# Packs data/train and writes a list for each of the tasks $1 of dev and test, and a page about all three; $2 is what they must not share.
pack_and_list() {
  python "$WENET_OSUM_ROOT/tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$WENET_OSUM_ROOT/tools/check_data_list.py" --list data/train/data.list
  for split in dev test; do
    python "$WENET_OSUM_ROOT/tools/make_task_lists.py" --tasks "$1" "data/$split/manifest.jsonl" "data/$split"
  done
  python "$WENET_OSUM_ROOT/tools/data_report.py" --disjoint "$2" --out data/report.html \
    train=data/train/manifest.jsonl dev=data/dev/manifest.jsonl test=data/test/manifest.jsonl
}

# Decodes the test list of each of the tasks $1 with the model of the last phase.
decode() {
  local task
  for task in $1; do
    python -m wenet_osum.bin.recognize --model "$(experiment "${phases##* }")/final" --list "data/test/$task.list" --task "$task" --out "exp/decode/$task"
  done
}

# Scores what decode wrote, all tasks on one page with the title $2.
score() {
  local task sets=()
  for task in $1; do sets+=(--set "$task=data/test/$task.list,exp/decode/$task"); done
  python -m wenet_osum.bin.score "${sets[@]}" --train_list data/train/manifest.jsonl --out exp/score --report --title "$2"
  echo "report: $PWD/exp/score/report.html; training curves: tensorboard --logdir $PWD/exp"
}

# Takes the phases from examples/osum/conf/$size: small is made from nothing in stage 2; 0.5b and 7b are a published Whisper and a published LLM,
# by hub name or, with --whisper and --llm, from folders.
choose_models() {
  confs=$WENET_OSUM_ROOT/examples/osum/conf/$size
  if [ ! -d "$confs" ]; then
    echo "--size $size: known are $(cd "$WENET_OSUM_ROOT/examples/osum/conf" && echo */ | tr -d /)" >&2
    exit 1
  fi
  if [ "$size" = small ] && [ -n "$whisper$llm" ]; then
    echo "--whisper and --llm are for published models: give --size 0.5b or 7b with them" >&2
    exit 1
  fi
  local name
  for name in whisper llm; do  # a folder is made absolute, a hub name stays
    if [ -n "${!name}" ] && [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
  done
}

# Adds to overrides what published models ask of phase $1. Phases 1 and 2 name them; the others begin from a folder of ours.
model_overrides() {
  local setting
  if [ "${size:-small}" = small ]; then return; fi
  for setting in $published; do overrides+=(--override "$setting"); done
  if [ -n "$whisper" ] && [[ $1 = [12]* ]]; then overrides+=(--override "model.whisper=$whisper"); fi
  if [ -n "$llm" ] && [[ $1 = 2* ]]; then overrides+=(--override "model.llm=$llm"); fi
}

# Stage 2. Size small: models from nothing, out of data/text/train.txt and the manifest $1. Published ones: what their phases will cost.
initial_models() {
  local phase found=()
  if [ "$size" = small ]; then
    python -m wenet_osum.bin.make_models --text data/text/train.txt --manifest "$1" --threads "$nproc" --conf "$confs/models.yaml" --out exp/init
    return
  fi
  for phase in $phases; do found+=("$(conf_of "$phase")"); done
  python -m wenet_osum.bin.estimate --config "${found[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} \
    --devices "$nproc" --memory_gib "$memory_gib"
}

# Puts the events of data/{train,dev,test}/manifest.jsonl into the speech of the folder $1, split by split; both recordings stay named.
put_events_into() {
  local split
  for split in train dev test; do
    mv "data/$split/manifest.jsonl" "data/$split/events.jsonl"
    python "$WENET_OSUM_ROOT/tools/add_events.py" --jobs "$nproc" --events "data/$split/events.jsonl" --wav_dir "data/wav/$split" \
      "$1/$split/manifest.jsonl" "data/$split/manifest.jsonl"
  done
  if [ -f "$1/text/train.txt" ]; then cat "$1/text/train.txt" >> data/text/train.txt; fi
}

#!/usr/bin/env bash
# What the stages of recipes have in common. To be sourced after parse_options.sh, in the recipe's work folder, with these set:
# here (the recipe's folder), stage, stop_stage, nproc, phases, average_num, override. Recipes whose models are chosen with --size also set size,
# whisper, llm and published (settings of the phases when the models are published ones), and call choose_models. A recipe may also set test_sets
# (folders of data/; by default test), normalizer (of scoring) and train_list (of the baseline in reports; empty: none).

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

# Makes a tokenizer, a Whisper-shaped model and an LLM of the text $1 and the manifest $2, in the sizes of $3; what follows is passed on.
make_models() {
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text "$1" --manifest "$2" --conf "$3" --out exp/init "${@:4}"
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

# Those of the folders $* of data/ that stage 0 wrote.
present() {
  local name
  for name in "$@"; do
    if [ -f "data/$name/manifest.jsonl" ]; then echo "$name"; else echo "data/$name is not there and left out" >&2; fi
  done
}

# Packs data/train and writes a list for each of the tasks $1 of dev and the test sets, and a page about all; $2 is what they must not share.
pack_and_list() {
  python "$WENET_OSUM_ROOT/tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$WENET_OSUM_ROOT/tools/check_data_list.py" --list data/train/data.list
  task_lists "$1" "$2" train
}

# The same without packing; the page is about dev, the test sets and the folders $3 of data/. Several test sets are joined as data/test as well, where
# recipes that mix others look.
task_lists() {
  local split lists=()
  for split in ${3:-}; do lists+=("$split=data/$split/manifest.jsonl"); done
  # shellcheck disable=SC2046  # words, as everywhere below
  for split in $(present dev ${test_sets:-test}); do
    python "$WENET_OSUM_ROOT/tools/make_task_lists.py" --tasks "$1" "data/$split/manifest.jsonl" "data/$split"
    lists+=("$split=data/$split/manifest.jsonl")
  done
  if [ "${test_sets:-test}" != test ]; then
    mkdir -p data/test
    for split in $(present $test_sets); do cat "data/$split/manifest.jsonl"; done >data/test/manifest.jsonl
  fi
  python "$WENET_OSUM_ROOT/tools/data_report.py" --disjoint "$2" --out data/report.html "${lists[@]}"
}

# Where the folder exp/$2 keeps what belongs to test set $1.
of_set() {
  if [ "$1" = test ]; then echo "exp/$2"; else echo "exp/$2/$1"; fi
}

# Decodes the list of each of the tasks $1 with the model of the last phase; published sizes in as many processes as they train.
decode() {
  local set task launch=(python)
  if [ "${size:-small}" != small ]; then launch=(torchrun --standalone --nproc_per_node "$nproc"); fi
  # shellcheck disable=SC2046
  for set in $(present ${test_sets:-test}); do
    for task in $1; do
      "${launch[@]}" -m wenet_osum.bin.recognize --model "$(experiment "${phases##* }")/final" --list "data/$set/$task.list" --task "$task" \
        --out "$(of_set "$set" decode)/$task"
    done
  done
}

# Scores what decode wrote, all tasks of a test set on one page with the title $2.
score() {
  local set task sets title train=${train_list-data/train/manifest.jsonl}
  # shellcheck disable=SC2046
  for set in $(present ${test_sets:-test}); do
    sets=()
    title=$2
    if [ "$set" != test ]; then title="$2, $set"; fi
    for task in $1; do sets+=(--set "$task=data/$set/$task.list,$(of_set "$set" decode)/$task"); done
    python -m wenet_osum.bin.score "${sets[@]}" ${train:+--train_list "$train"} --normalizer "${normalizer:-none}" --out "$(of_set "$set" score)" \
      --report --title "$title"
    echo "report: $PWD/$(of_set "$set" score)/report.html"
  done
  echo "training curves: tensorboard --logdir $PWD/exp"
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
    make_models data/text/train.txt "$1" "$confs/models.yaml"
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

#!/usr/bin/env bash
# What the stages of recipes have in common. To be sourced after parse_options.sh, with these set: here (the recipe's folder), stage, stop_stage,
# nproc, phases, average_num, override. Stages run in the recipe's work folder. A recipe may also set test_sets (folders of data/, by default test),
# settings (overrides of its own, before the user's), normalizer (of scoring), and train_list (of the baseline in reports; empty: none).

confs=$here/conf  # the folder of the phases' configurations
launch=(python)   # what decodes
test_sets=${test_sets:-test}

in_stages() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]
}

# For recipes whose models $models names: 7b or 0.5b (published ones), small (made from nothing), all in examples/osum/conf, or a folder of the user's.
# Sets the phases when they are not given. $whisper and $llm may name other published models, or folders.
choose_models() {
  local name
  confs=$WENET_OSUM_ROOT/examples/osum/conf/$models
  if [ ! -d "$confs" ]; then confs=$(realpath -m "$models"); fi
  if ! ls "$confs"/train_1_*.yaml >/dev/null 2>&1; then
    echo "--models $models: neither one of $(cd "$WENET_OSUM_ROOT/examples/osum/conf" && echo */ | tr -d /), nor a folder with train_1_….yaml" >&2
    exit 1
  fi
  for name in whisper llm; do  # a folder is made absolute, a hub name stays
    if [ -n "${!name}" ] && [ -d "${!name}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
  done
  if [ -z "$phases" ]; then phases="1 2 3 $([ -f "$confs/train_4_lora.yaml" ] && echo 4_lora || echo 4_full)"; fi
  if [ -f "$confs/models.yaml" ]; then
    settings=
  else
    launch=(torchrun --standalone --nproc_per_node "$nproc")
  fi
}

# Makes small models from the training text, or counts what the phases cost with published ones.
initial_models() {
  local phase files=()
  if [ -f "$confs/models.yaml" ]; then
    head -n 100000 data/train/manifest.jsonl >data/text/train.jsonl  # enough for a small LLM, however large the corpus
    python -m wenet_osum.bin.make_models --text data/text/train.txt --manifest data/text/train.jsonl --threads "$nproc" --conf "$confs/models.yaml" --out exp/init
  else
    for phase in $phases; do files+=("$(conf_of "$phase")"); done
    python -m wenet_osum.bin.estimate --config "${files[@]}" ${whisper:+--whisper "$whisper"} ${llm:+--llm "$llm"} \
      --devices "$nproc" --memory_gib "$memory_gib" --peak_tflops "$peak_tflops"
  fi
}

# The configuration of phase $1, a number or a whole name: 4 when there is one phase 4, 4_lora when there are several.
conf_of() {
  if [ -f "$confs/train_$1.yaml" ]; then echo "$confs/train_$1.yaml"; else echo "$confs"/train_"$1"_*.yaml; fi
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
  local overrides setting phase
  for phase in $phases; do
    overrides=()
    case $phase in [12]*) if [ -n "${whisper:-}" ]; then overrides+=(--override "model.whisper=$whisper"); fi ;; esac
    case $phase in 2*) if [ -n "${llm:-}" ]; then overrides+=(--override "model.llm=$llm"); fi ;; esac
    for setting in ${settings:-} $override; do overrides+=(--override "$setting"); done
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

# Packs data/train and writes a list for each of the tasks $1 of dev and test, and a page about all; $2 is what they must not share.
pack_and_list() {
  python "$WENET_OSUM_ROOT/tools/make_shard_list.py" --shuffle --num_utts_per_shard 500 --num_threads "$nproc" \
    --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$WENET_OSUM_ROOT/tools/check_data_list.py" --list data/train/data.list
  task_lists "$1" "$2" train
}

# The same without packing: lists of the tasks $1, and a page about these, which must not share $2, and the folders $3 of data/.
task_lists() {
  local split lists=()
  for split in ${3:-}; do lists+=("$split=data/$split/manifest.jsonl"); done
  # shellcheck disable=SC2086  # test_sets are words
  for split in $(present dev $test_sets); do
    python "$WENET_OSUM_ROOT/tools/make_task_lists.py" --tasks "$1" "data/$split/manifest.jsonl" "data/$split"
    lists+=("$split=data/$split/manifest.jsonl")
  done
  python "$WENET_OSUM_ROOT/tools/data_report.py" --disjoint "$2" --out data/report.html "${lists[@]}"
}

# Where the answers to test set $1 and task $2 go.
answers() {
  if [ "$1" = test ]; then echo "exp/decode/$2"; else echo "exp/decode/$1/$2"; fi
}

# Decodes the lists of each of the tasks $1 with the model of the last phase.
decode() {
  local set task
  # shellcheck disable=SC2086
  for set in $(present $test_sets); do
    for task in $1; do
      "${launch[@]}" -m wenet_osum.bin.recognize --model "$(experiment "${phases##* }")/final" --list "data/$set/$task.list" --task "$task" \
        --out "$(answers "$set" "$task")"
    done
  done
}

# Scores what decode wrote, all tasks of a test set on one page with the title $2.
score() {
  local set task sets out train=${train_list-data/train/manifest.jsonl}
  # shellcheck disable=SC2086
  for set in $(present $test_sets); do
    sets=()
    out=exp/score
    if [ "$set" != test ]; then out=exp/score/$set; fi
    for task in $1; do sets+=(--set "$task=data/$set/$task.list,$(answers "$set" "$task")"); done
    python -m wenet_osum.bin.score "${sets[@]}" ${train:+--train_list "$train"} --normalizer "${normalizer:-none}" --out "$out" --report \
      --title "$2$([ "$set" = test ] || echo ", $set")"
    echo "report: $PWD/$out/report.html"
  done
  echo "training curves: tensorboard --logdir $PWD/exp"
}

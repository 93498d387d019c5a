#!/usr/bin/env bash
# The little that all recipes share. To be sourced after parse_options.sh; a recipe has set here (its folder), stage, stop_stage, work and phases.
# The commands of a recipe are in its run.sh.

tools=$WENET_OSUM_ROOT/tools
if [ $# -gt 0 ]; then echo "$0: '$1' is no option; --help lists the options" >&2; exit 1; fi

# NCCL refuses two processes on one GPU: where there are GPUs, no more processes than these.
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c .) || gpus=0
if [ "$gpus" -gt 0 ] && [ "${nproc-0}" -gt "$gpus" ]; then nproc=$gpus; echo "--nproc is $gpus: there are no more GPUs"; fi

# Is stage $1 asked for?
in_stages() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

# Prints --NAME where the option NAME ($1) is true, e.g. $(flag strict_counts).
flag() {
  if [ "${!1}" = true ]; then echo "--$1"; fi
}

# Goes into the work folder, where stages run. The options $* are paths, relative to where the user is; they become absolute, and so
# do --whisper and --llm where they are folders and no hub names.
go_to_work() {
  local name
  cd "${RUN_FROM:-$PWD}"
  for name in work "$@"; do
    if [ -n "${!name}" ]; then printf -v "$name" '%s' "$(realpath -m "${!name}")"; fi
  done
  for name in whisper llm; do
    if [ -d "${!name-}" ]; then printf -v "$name" '%s' "$(realpath "${!name}")"; fi
  done
  mkdir -p "$work"
  cd "$work"
}

# For recipes with --size: sets conf, the folder of the phases of this size, and names them.
choose_size() {
  # shellcheck disable=SC2034  # run.sh reads it
  conf=$WENET_OSUM_ROOT/examples/osum/conf/$size
  if [ ! -d "$conf" ]; then
    echo "--size $size: known are $(cd "$WENET_OSUM_ROOT/examples/osum/conf" && echo */ | tr -d /)" >&2
    exit 1
  fi
  if [ "$size" = small ] && [ -n "$whisper$llm" ]; then
    echo "--whisper and --llm are for published models: give --size 0.5b or 7b with them" >&2
    exit 1
  fi
  name_phases
}

# Turns phases, "1 2", into the names of their yamls in $conf, "1_whisper 2_adapter"; sets configs, those yamls, and last, the last phase.
name_phases() {
  local phase found
  configs=()
  for phase in $phases; do
    found=("$conf/train_$phase"*.yaml)  # of several the last: LoRA comes after the full LLM
    configs+=("${found[-1]}")
  done
  phases=$(basename -s .yaml "${configs[@]}" | sed 's/^train_//' | tr '\n' ' ')
  phases=${phases% } last=${phases##* }
}

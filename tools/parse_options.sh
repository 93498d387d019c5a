#!/usr/bin/env bash
# Command-line options for shell scripts, as Kaldi and WeNet users know them. To be sourced:
#
#   stage=0  # first stage
#   . tools/parse_options.sh || exit 1
#
# Each variable set before is an option: "--name value" and "--name=value" set the variable `name`; dashes in a name become
# underscores. A name that no variable has is an error. A variable that holds true or false takes only these, stages are whole
# numbers. What is left stays in "$@". --help prints $help_message or, without one, what the script itself says: its second line, its options with default and
# comment, and its stages.

# Prints the help of the script $1, out of its own lines.
describe_script() {
  sed -n '2s/^# *//p' "$1"
  echo $'\nOptions, with their defaults:'
  sed -n -E '/parse_options\.sh/q; s/^([a-z_]+)=(.*[^ ])? +# +(.*)/  --\1 \2\n      \3/p' "$1"
  echo $'\nStages:'
  sed -n -E 's/^ *echo "stage (-?[0-9]+): (.*)"$/  \1  \2/p' "$1"
}

while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h)
      if [ -n "${help_message:-}" ]; then printf '%s\n' "$help_message"; else describe_script "$0"; fi
      exit 0 ;;
    --) shift; break ;;
    --*) ;;
    *) break ;;
  esac
  option_name=${1%%=*}
  option_name=${option_name#--}
  option_name=${option_name//-/_}
  if ! [[ $option_name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || ! declare -p "$option_name" >/dev/null 2>&1; then
    echo "$0: unknown option --${option_name}; --help lists the options" >&2
    exit 1
  fi
  case "$1" in
    *=*) option_value=${1#*=}; shift ;;
    *)
      if [ $# -lt 2 ]; then
        echo "$0: option $1 needs a value" >&2
        exit 1
      fi
      option_value=$2; shift 2 ;;
  esac
  option_before=${!option_name-}
  if [[ $option_before == true || $option_before == false ]] && [[ $option_value != true && $option_value != false ]]; then
    echo "$0: option --$option_name takes true or false, got '$option_value'" >&2
    exit 1
  fi
  if [[ $option_name =~ ^(stop_)?stage$ && ! $option_value =~ ^-?[0-9]+$ ]]; then
    echo "$0: option --$option_name takes a whole number, got '$option_value'" >&2
    exit 1
  fi
  printf -v "$option_name" '%s' "$option_value"
done
unset option_name option_value option_before
true  # the status of sourcing this file, whatever came last

#!/usr/bin/env bash
# Where test sets lie. To be sourced by a run.sh in its work folder.

# The list of test set $1, TASK:NAME, nothing where it is not there.
test_list() {
  local list=corpora/${1#*:}/data/test/manifest.jsonl
  if [ -f "$list" ]; then echo "$list"; else echo "test $1 is left out: no $list" >&2; fi
}

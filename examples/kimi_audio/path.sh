#!/usr/bin/env bash
# To be sourced: the toolkit's environment and paths.
. "$(dirname "${BASH_SOURCE[0]}")/../../path.sh"

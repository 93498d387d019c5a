#!/usr/bin/env bash
# Does training recognition together with X make X better? Arms × X × seeds from one model of the recipe natural, and a page about it. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2086,SC2154  # options and settings are words; tools/recipe.sh sets tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage; 4 where the recipe natural has trained its phase 2 already
stop_stage=6     # last stage
corpora=         # folders that hold the official downloads of speechocean762, RAVDESS and ESC-50
natural=$(dirname "$here")/natural  # work folder of the recipe natural, which makes the model that cells begin from
work=$here       # where data/ and exp/ go
whisper=openai/whisper-base     # folder or hub name of the Whisper
llm=Qwen/Qwen2.5-0.5B-Instruct  # folder or hub name of the LLM, one with a chat template
nproc=2          # processes of natural's phases, and cells trained at a time; a cell is one process
xs=              # only cells of these X, e.g. "ser sap"; empty: all
seeds="1 2 3"    # only cells of these seeds
cells=           # stop each process after this many cells; empty: all that are left
results=         # folder of the results, a file per cell; empty: exp/results. A cell with a result is not run, wherever it was run
hours=           # begin no cell after this many hours
dtype=float32    # in which cells are trained and answer; bfloat16 where the machine multiplies it in hardware
page=$WENET_OSUM_ROOT/docs  # where stage 6 writes asrx.md and its picture
align_override=  # settings of natural's phases, e.g. "dtype=bfloat16"
override=        # settings of every cell, e.g. "max_steps=2 eval_every=1"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
phases="1 2"
corpora=$(cd "${RUN_FROM:-$PWD}" && realpath -m ${corpora:-"$natural/downloads"} | tr '\n' ' ')
go_to_work natural page results
results=${results:-exp/results}
# The recipe natural, in its own work folder.
natural_stages() { bash "$(dirname "$here")/natural/run.sh" --work "$natural" --corpora "$corpora" --whisper "$whisper" --llm "$llm" --nproc "$nproc" "$@"; }

if in_stages 0; then
  echo "stage 0: the corpora, as the recipe natural prepares them"
  natural_stages --stage 0 --stop_stage 0
fi

if in_stages 1; then
  echo "stage 1: natural's mixtures"
  natural_stages --stage 1 --stop_stage 1 --replies false
fi

if in_stages 2; then
  echo "stage 2: the tokens that CTC may spell with, in natural's phases"
  . "$(dirname "$here")/natural/local/classes.sh"; ctc_classes "$natural/data"
fi

if in_stages 3; then
  echo "stage 3: training natural's phases $phases"
  natural_stages --stage 3 --stop_stage 3 --phases "$phases" --override "$align_override"
fi

if in_stages 4; then
  echo "stage 4: half an hour of training audio, a dev and a test list per task, and the best checkpoint of natural's phase 2, where every cell begins"
  python "$here/local/prepare.py" --corpora "$natural/corpora" --out data
  python -m wenet_osum.bin.average --exp_dir "$natural/exp/2_align" --mode best --num 1 --out exp/shared
fi

if in_stages 5; then
  echo "stage 5: training, decoding and scoring the cells, $nproc at a time"
  # Whoever comes first locks a cell; a cell that was stopped goes on from its last checkpoint.
  pids=
  # Cells save when they are told to stop, and do not outlive this script.
  trap 'kill $pids 2>/dev/null || true; wait' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  for n in $(seq "$nproc"); do
    LOCAL_RANK=$((n - 1)) python "$here/local/cells.py" --out exp/cells --results "$results" --shared exp/shared --dtype "$dtype" --seeds $seeds ${xs:+--xs $xs} ${cells:+--cells "$cells"} \
      ${hours:+--hours "$hours"} --override dtype="$dtype" $override &
    pids="$pids $!"
  done
  for pid in $pids; do wait "$pid"; done
fi

if in_stages 6; then
  echo "stage 6: the page"
  python "$here/local/page.py" --results "$results" --out "$page"
fi

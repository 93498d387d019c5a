#!/usr/bin/env bash
# Does training recognition together with X make X better? Arms × X × seeds from one shared encoder, and a page about it. README.md explains the recipe.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # folder with the corpora below in it; empty: downloads/ in the work folder, filled by stage -1
fsdd_dir=            # copy of the official repository; empty: fsdd in data_dir, and so on
speechocean762_dir=  # the unpacked archive
ravdess_dir=         # the unpacked archive
esc50_dir=           # copy of the official repository
work=            # where data/ and exp/ go; empty: this folder
nproc=1          # processes of preparation and of the shared phase; a cell is one process
average_num=1    # checkpoints of the shared phase averaged
cells=           # stop after this many cells; empty: all that are left
hours=           # begin no cell after this many hours
toy_scale=1.0    # share of the toy corpus
page=            # where stage 6 writes asrx.md and its picture; empty: docs/ of the toolkit
override=        # settings of every training, e.g. "max_steps=2 eval_every=1"
# shellcheck disable=SC2034  # parse_options.sh prints it
help_message="Usage: run.sh [--stage N] [--stop_stage M] [--data_dir DIR] [--fsdd_dir DIR] [--speechocean762_dir DIR] [--ravdess_dir DIR]
  [--esc50_dir DIR] [--work DIR] [--nproc N] [--average_num N] [--cells K] [--hours H] [--toy_scale X] [--page DIR] [--override \"a.b=c d=e\"]
Stages: -1 download, 0 prepare, 1 check and lists, 2 initial model, 3 train the shared phase, 4 average it, 5 the cells, 6 table and page"

# shellcheck source=path.sh
. "$here/path.sh"
# shellcheck source=../../tools/parse_options.sh
. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1

cd "${RUN_FROM:-$PWD}"  # paths the user gives are relative to where the user is
unset RUN_FROM          # the other recipes are called with whole paths
work=$(realpath -m "${work:-$here}")
data_dir=$(realpath -m "${data_dir:-$work/downloads}")
corpora="fsdd speechocean762 ravdess esc50"
for corpus in $corpora; do
  place=${corpus}_dir
  printf -v "$place" '%s' "$(realpath -m "${!place:-$data_dir/$corpus}")"
done
page=$(realpath -m "${page:-$WENET_OSUM_ROOT/docs}")
mkdir -p "$work"
cd "$work"
tools=$WENET_OSUM_ROOT/tools
examples=$(dirname "$here")
phases=1
# shellcheck source=../../tools/recipe.sh
. "$WENET_OSUM_ROOT/tools/recipe.sh"

if in_stages -1; then
  echo "stage -1: downloading what is not there, as the recipes of the corpora do"
  for corpus in $corpora; do
    place=${corpus}_dir
    bash "$examples/$corpus/run.sh" --stage -1 --stop_stage -1 --data_dir "${!place}" --work "$work/downloads"
  done
fi

if in_stages 0; then
  echo "stage 0: preparing the corpora, as their recipes do"
  python "$examples/toy/local/prepare.py" --out data/toy --jobs "$nproc" --scale "$toy_scale"
  for corpus in $corpora; do
    place=${corpus}_dir more=()
    if [ "$corpus" = esc50 ]; then more=(--rest other); fi
    python "$examples/$corpus/local/prepare.py" --data_dir "${!place}" --out "data/$corpus" "${more[@]}"
  done
  echo "putting the events of each fold into the speech of its own split"
  for split in train dev test; do
    python "$tools/add_events.py" --jobs "$nproc" --events "data/esc50/$split/manifest.jsonl" --wav_dir "data/events/wav/$split" \
      "data/speechocean762/$split/manifest.jsonl" "data/events/$split/manifest.jsonl"
  done
  cat data/{toy,fsdd,speechocean762,ravdess}/text/train.txt > data/train.txt
fi

if in_stages 1; then
  echo "stage 1: checking, and a list a task"
  python "$here/local/prepare.py" --data data
fi

if in_stages 2; then
  echo "stage 2: the initial model"
  make_models data/train.txt data/speechocean762/train/manifest.jsonl "$here/conf/models.yaml"
fi

if in_stages 3; then
  echo "stage 3: training the shared phase, recognition alone"
  train_phases "$here/conf/data_1.yaml"
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the shared phase"
  python -m wenet_osum.bin.average --exp_dir "$(experiment 1)" --mode best --num "$average_num" --out exp/shared
fi

if in_stages 5; then
  echo "stage 5: training, decoding and scoring the cells"
  settings=()
  for setting in $override; do settings+=(--override "$setting"); done
  python "$here/local/cells.py" --out exp/cells --shared exp/shared ${cells:+--cells "$cells"} ${hours:+--hours "$hours"} "${settings[@]}"
fi

if in_stages 6; then
  echo "stage 6: the page"
  python "$here/local/page.py" --cells exp/cells --out "$page"
fi

#!/usr/bin/env bash
# Does training recognition together with X make X better? Arms × X × seeds from one shared encoder, and a page about it. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=        # folder with the corpora below in it; empty: downloads/ in the work folder, filled by stage -1
fsdd_dir=            # copy of the official repository; empty: fsdd in data_dir, and so on
speechocean762_dir=  # the unpacked archive
ravdess_dir=         # the unpacked archive
esc50_dir=           # copy of the official repository
work=$here       # where data/ and exp/ go
nproc=1          # processes of preparation and of the shared phase; a cell is one process
average_num=1    # checkpoints of the shared phase averaged
cells=           # stop after this many cells; empty: all that are left
hours=           # begin no cell after this many hours
toy_scale=1.0    # share of the toy corpus
page=$WENET_OSUM_ROOT/docs  # where stage 6 writes asrx.md and its picture
override=        # settings of every training, e.g. "max_steps=2 eval_every=1"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf phases=1_whisper
name_phases
go_to_work data_dir page fsdd_dir speechocean762_dir ravdess_dir esc50_dir
data_dir=${data_dir:-$work/downloads}
corpora="fsdd speechocean762 ravdess esc50"
examples=$(dirname "$here")

# Where the corpus $1 lies.
folder_of() {
  local option=${1}_dir
  echo "${!option:-$data_dir/$1}"
}

if in_stages -1; then
  echo "stage -1: downloading what is not there, as the recipes of the corpora do"
  for corpus in $corpora; do
    bash "$examples/$corpus/run.sh" --stage -1 --stop_stage -1 --data_dir "$(folder_of "$corpus")" --work "$work/downloads"
  done
fi

if in_stages 0; then
  echo "stage 0: preparing the corpora, as their recipes do"
  python "$examples/toy/local/prepare.py" --out data/toy --jobs "$nproc" --scale "$toy_scale"
  for corpus in $corpora; do
    python "$examples/$corpus/local/prepare.py" --data_dir "$(folder_of "$corpus")" --out "data/$corpus" \
      $([ "$corpus" != esc50 ] || echo --rest other)
  done
  # The events of each fold go into the speech of its own split.
  python "$tools/add_events.py" --jobs "$nproc" --events data/esc50 --wav_dir data/events/wav data/speechocean762 data/events
  cat data/{toy,fsdd,speechocean762,ravdess}/text/train.txt >data/train.txt
fi

if in_stages 1; then
  echo "stage 1: checking, and a list per task"
  python "$here/local/prepare.py" --data data
fi

if in_stages 2; then
  echo "stage 2: the initial model"
  # A tokenizer of the training text and a Whisper-shaped model; the LLM is not used.
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/train.txt \
    --manifest data/speechocean762/train/manifest.jsonl --conf "$conf/models.yaml" --out exp/init
fi

if in_stages 3; then
  echo "stage 3: training the shared phase, recognition alone"
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_1_whisper.yaml" \
    --data "$conf/data_1.yaml" --exp_dir exp/1_whisper --override $override
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of the shared phase"
  python -m wenet_osum.bin.average --exp_dir exp/1_whisper --mode best --num "$average_num" --out exp/shared
fi

if in_stages 5; then
  echo "stage 5: training, decoding and scoring the cells"
  python "$here/local/cells.py" --out exp/cells --shared exp/shared ${cells:+--cells "$cells"} ${hours:+--hours "$hours"} --override $override
fi

if in_stages 6; then
  echo "stage 6: the page"
  python "$here/local/page.py" --cells exp/cells --out "$page"
fi

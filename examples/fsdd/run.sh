#!/usr/bin/env bash
# ASR and SRWT (recognition with word times) on strings of real spoken digits. README.md explains the recipe; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=-1         # first stage
stop_stage=6     # last stage
data_dir=$here/downloads/free-spoken-digit-dataset  # copy of the official repository, filled by stage -1
leave_out=       # speaker to test on alone; empty: the official split (takes 0-4)
work=            # where data/ and exp/ go; empty: this folder, or leave_out/SPEAKER in it
nproc=2          # processes that train and decode, one per device
phases="1 2 3 4"  # training phases of stage 3
average_num=1    # checkpoints averaged
train_strings=8000  # strings of digits to train on
dev_strings=100  # to validate on
test_strings=300  # to test on
rescore=ctc_prefix=0.5,word_times=0.5  # of decoding: weights of the adapter's CTC in transcripts and of its frames in word times, chosen on dev
strict_counts=false  # true: stop unless the corpus is complete
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf
work=${work:-$here${leave_out:+/leave_out/$leave_out}}
name_phases
go_to_work data_dir
tasks="asr srwt"

if in_stages -1; then
  echo "stage -1: https://github.com/Jakobovski/free-spoken-digit-dataset → $data_dir; nothing to download where it is there"
  if [ ! -d "$data_dir/recordings" ]; then
    mkdir -p "$(dirname "$data_dir")"
    rm -rf "$data_dir.part"
    git clone --quiet --depth 1 https://github.com/Jakobovski/free-spoken-digit-dataset.git "$data_dir.part"
    mv "$data_dir.part" "$data_dir"
  fi
fi

if in_stages 0; then
  echo "stage 0: joining digits into strings"
  python "$here/local/prepare.py" --data_dir "$data_dir" --out "$PWD/data" --leave_out "$leave_out" $(flag strict_counts) \
    --train_strings "$train_strings" --dev_strings "$dev_strings" --test_strings "$test_strings"
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  for split in train dev test; do
    python "$tools/make_shard_list.py" --num_utts_per_shard 500 --num_threads "$nproc" --manifest "data/$split/manifest.jsonl" \
      "data/$split/shards" "data/$split/data.list"
  done
  python "$tools/check_data_list.py" --list data/train/data.list data/dev/data.list data/test/data.list
  python "$tools/make_task_lists.py" --tasks "$tasks" data/test
fi

if in_stages 2; then
  echo "stage 2: initial models"
  # A tokenizer and an LLM made of the training text, and a Whisper-shaped model.
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
    --manifest data/train/manifest.jsonl --conf "$conf/models.yaml" --out exp/init
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  # Each phase begins from the average of the one before. Started again, it goes on from its last checkpoint.
  # On several machines, give torchrun --nnodes and --rdzv_endpoint instead of --standalone (docs/training.md).
  for phase in $phases; do
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$here/conf/data.yaml" --exp_dir "exp/$phase" --override $override
    [ "$phase" = "$last" ] || python -m wenet_osum.bin.average --exp_dir "exp/$phase" --mode best --num "$average_num" --out "exp/$phase/final"
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the best $average_num checkpoints of phase $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode best --num "$average_num" --out "exp/$last/final"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  ask=(python -m wenet_osum.bin.recognize --model "exp/$last/final" --list data/test/data.list --plugins wenet_osum.small)
  for task in $tasks; do
    # Jointly: CTC weighs in on words and the adapter's frames on their times; then by the LLM alone, to compare.
    "${ask[@]}" --task "$task" --rescore "$rescore" --out "exp/decode/$task"
    "${ask[@]}" --task "$task" --out "exp/decode_llm/$task"
  done
  "${ask[@]}" --task asr --rescore "$rescore" --prompts all --out exp/prompts/asr
fi

if in_stages 6; then
  echo "stage 6: scoring"
  for task in $tasks; do
    python -m wenet_osum.bin.score --set "$task=data/test/manifest.jsonl,exp/decode/$task" --compare "exp/decode_llm/$task" \
      --out "exp/score/$task" --report --title "FSDD, $task: joint decoding ($rescore) against the LLM alone"
  done
  python -m wenet_osum.bin.score --set asr=data/test/manifest.jsonl,exp/prompts/asr --out exp/score/prompts --report --title "FSDD, every wording"
  # The block WeNet's users know; exp/score/wer has every utterance.
  python "$tools/compute-wer.py" --char=1 --v=1 data/test/asr.text exp/decode/asr/text | tee exp/score/wer | tail -n 8
  echo "reports: $work/exp/score; training curves: tensorboard --logdir $work/exp"
fi

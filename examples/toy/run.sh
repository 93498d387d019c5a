#!/usr/bin/env bash
# The toy recipe: a synthesized corpus in two languages, eight tasks, four phases, one report, on two CPU cores. README.md explains it; --help lists its options.
# shellcheck disable=SC2046,SC2086,SC2154  # options and settings are words; tools/recipe.sh sets conf, configs, last and tools
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/path.sh"

stage=0          # first stage; there is nothing to download
stop_stage=6     # last stage
nproc=2          # processes that train, and that decode
phases="1 2 3 4" # phases of stage 3, the last is decoded and scored; 4_lora in the place of 4: LoRA in the frozen LLM
average_num=1    # checkpoints averaged
work=            # where data/ and exp/ go; default: this folder, with --mini true mini/ in it
seed=1           # of the corpus
rescore=ctc_prefix=0.3,word_times=0.5  # of decoding asr and srwt: weights of the adapter's CTC in transcripts and of its frames in word times, chosen on dev
closer=true      # also look closer: every wording, labels not limited, beams, long recordings, worse sound
mini=false       # true: a tenth of the corpus and ten steps a phase, to see that everything runs
override=        # settings for every training phase, e.g. "max_steps=2 eval_every=2"

. "$WENET_OSUM_ROOT/tools/parse_options.sh" || exit 1
. "$WENET_OSUM_ROOT/tools/recipe.sh"
conf=$here/conf
if [ -z "$work" ]; then work=$here; [ "$mini" = false ] || work=$here/mini; fi
phases=${phases/%4/4_llm}
name_phases
go_to_work
. "$here/local/closer.sh"  # closer_lists, closer_decodings, closer_scores
tasks="asr srwt ved ser ssr sgc sap sttc"
conditions="clean noise_10db reverb_0.3s telephone"  # of worse sound
if [ "$mini" = true ]; then
  override="max_epochs=null max_steps=10 optim.warmup_steps=2 eval_every=10 log_every=5 $override"
fi

# A whole run says how long it will take here: work in TFLOP, and seconds of one core besides (RESULTS.md has what they were measured on).
if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 6 ]; then
  python "$tools/machine_speed.py" --processes "$nproc" --run "the default run" 42 1000 --run "a run with --mini true" 2 200
fi

if in_stages 0; then
  echo "stage 0: synthesizing the corpus"
  python "$here/local/prepare.py" --out data --seed "$seed" --jobs "$nproc" $(flag mini)
fi

if in_stages 1; then
  echo "stage 1: packing and checking"
  python "$tools/make_shard_list.py" --shuffle --num_threads "$nproc" --manifest data/train/manifest.jsonl data/train/shards data/train/data.list
  python "$tools/check_data_list.py" --list data/train/data.list
  # Lists per task and, for scoring, their reference texts: few for dev, which every phase decodes.
  for split in dev:60 test:240; do
    python "$tools/make_task_lists.py" --tasks "$tasks" --limit "${split#*:}" "data/${split%:*}"
  done
  if [ "$closer" = true ]; then closer_lists; fi
fi

if in_stages 2; then
  echo "stage 2: initial models"
  # A tokenizer and an LLM made of the training text and of pseudo-speech, and a Whisper-shaped model.
  torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.make_models --text data/text/train.txt \
    --manifest data/train/manifest.jsonl --conf "$conf/models.yaml" --out exp/init --override $([ "$mini" = false ] || echo llm.epochs=0.2)
fi

if in_stages 3; then
  echo "stage 3: training phases $phases"
  # A phase begins from the end of the one before. Started again, it goes on from its last checkpoint.
  for phase in $phases; do
    mixture=$conf/data.yaml
    if [ "$phase" = 1_whisper ]; then mixture=$conf/data_1.yaml; fi
    torchrun --standalone --nproc_per_node "$nproc" -m wenet_osum.bin.train --config "$conf/train_$phase.yaml" \
      --data "$mixture" --exp_dir "exp/$phase" --override $override
  done
fi

if in_stages 4; then
  echo "stage 4: averaging the last $average_num checkpoints of $last"
  python -m wenet_osum.bin.average --exp_dir "exp/$last" --mode last --num "$average_num" --out "exp/$last/average"
fi

if in_stages 5; then
  echo "stage 5: decoding"
  # One command per line, in processes that stay; the longest first, so that none waits for another in the end. Transcripts alone and times are
  # decoded jointly: what the adapter's CTC and frames tell weighs in beside the LLM.
  {
    if [ "$closer" = true ]; then closer_decodings; fi
    for task in $tasks; do
      joint=$([[ $task != asr && $task != srwt ]] || echo "--plugins wenet_osum.small --rescore $rescore")
      echo "recognize --model exp/$last/average --list data/test/$task.list --task $task $joint --out exp/$last/decode/$task"
    done
  } | python "$tools/run_commands.py" --jobs "$nproc"
fi

if in_stages 6; then
  echo "stage 6: scoring"
  if [ "$closer" = true ]; then closer_scores; fi
  python -m wenet_osum.bin.score $(for task in $tasks; do echo "--set $task=data/test/$task.list,exp/$last/decode/$task"; done) \
    --train_list data/train/manifest.jsonl --out "exp/$last/score" --report --title "Toy recipe, eight tasks" --exp exp/1_whisper exp/2_adapter \
    exp/3_encoder "exp/$last" --bar 'asr/wer/en<=8' --bar 'asr/cer/zh<=8' --bar 'ved/accuracy>=90' --bar 'sgc/accuracy>=90' --bar 'sap/accuracy>=90' \
    --bar 'ser/accuracy>=80' --bar 'ssr/accuracy>=80' --bar 'sttc/exact_match>=90' --bar 'srwt/within_100ms/all>=90'
  # The block WeNet's users know; exp/PHASE/score/wer has every utterance.
  python "$tools/compute-wer.py" --char=1 --v=1 data/test/asr.text "exp/$last/decode/asr/text" | tee "exp/$last/score/wer" | tail -n 8
  echo "report: $work/exp/$last/score/report.html; a closer look: $work/exp/$last/closer/score; training curves: tensorboard --logdir $work/exp"
  echo "these stages took $((SECONDS / 60)) min $((SECONDS % 60)) s"
fi

# shellcheck shell=bash disable=SC2086,SC2154  # run.sh sets the variables
# Stage 5, of conversations: answers their last turn, given the earlier ones as they stand in the list, and scores it.
if [ -f data/talk/test.list ]; then
  python -m wenet_osum.bin.recognize --model "exp/$last/final" --list data/talk/test.list --task auto $decode --out exp/decode/talk
  # Only those made of the corpora are known to ask one task.
  if [ -z "$conversations" ]; then
    python -m wenet_osum.bin.score --ref data/talk/test.list --hyp exp/decode/talk --task '<GENDER>' --out exp/score/talk \
      --report --title "The shape of Kimi-Audio, conversations"
  fi
fi

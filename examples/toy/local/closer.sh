#!/usr/bin/env bash
# The closer look of the toy recipe. To be sourced by run.sh, whose variables it reads.
# shellcheck disable=SC2086,SC2154

# Long recordings out of the test set, and the test set in worse sound.
closer_lists() {
  python "$tools/make_long_list.py" data/test/srwt.list data/long
  python "$tools/make_robust_lists.py" --only $conditions --jobs "$nproc" data/test/asr.list data/robust
}

# Prints commands for tools/run_commands.py. Every wording of a prompt, labels that are not limited to their set, beams, long recordings, worse sound, and times by the LLM alone.
closer_decodings() {
  local condition decode="recognize --model exp/$last/average" joint="--plugins wenet_osum.small --rescore $rescore" out=exp/$last/closer
  echo "$decode --list data/test/ser.list --task ser --prompts all --out $out/prompts"
  echo "$decode --list data/long/manifest.jsonl --task srwt $joint --longest_s 3 --out $out/long"
  echo "$decode --list data/test/asr.list --task asr $joint --num_beams 4 --out $out/beams"
  for condition in $conditions; do echo "$decode --list data/robust/$condition.jsonl --task asr $joint --out $out/robust/$condition"; done
  echo "$decode --list data/test/ser.list --task ser --free --out $out/free"
  echo "$decode --list data/test/srwt.list --task srwt --out $out/llm"
}

# A page each, and a table of the conditions.
closer_scores() {
  local out=exp/$last/closer
  closer_pages | python "$tools/run_commands.py" --jobs "$nproc"
  python "$tools/robust_table.py" --conditions data/robust/conditions --out "$out/score/robust.md" "$out/score/robust"
}

# Prints commands for tools/run_commands.py. Where there are two ways, one is compared with the other.
closer_pages() {
  local condition out=exp/$last/closer
  echo "score --report --set ser=data/test/ser.list,$out/prompts --compare $out/free --out $out/score/prompts \
    --title 'Toy recipe: every wording, and labels limited to their set against free ones'"
  echo "score --report --set asr=data/test/asr.list,exp/$last/decode/asr --compare $out/beams --out $out/score/beams \
    --title 'Toy recipe: greedy against 4 beams'"
  echo "score --report --set srwt=data/test/srwt.list,exp/$last/decode/srwt --compare $out/llm --out $out/score/joint \
    --title 'Toy recipe: CTC and frames beside the LLM against the LLM alone'"
  echo "score --report --set srwt=data/long/manifest.jsonl,$out/long --out $out/score/long --title 'Toy recipe: long recordings'"
  for condition in $conditions; do
    echo "score --report --set asr=data/robust/$condition.jsonl,$out/robust/$condition --out $out/score/robust/$condition \
      --title 'Toy recipe: $condition'"
  done
}

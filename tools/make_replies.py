#!/usr/bin/env python3
"""Write what a text LLM answers to each transcript, as the reply of STTC utterances or as the answers of a cascade.

    python tools/make_replies.py --llm Qwen/Qwen2.5-0.5B-Instruct data/train/manifest.jsonl data/replies/train.jsonl
    python tools/make_replies.py --llm Qwen/Qwen2.5-0.5B-Instruct --hyp exp/whisper/asr data/test.list exp/cascade/sttc

The LLM is asked in its own chat template, greedily. Without --hyp the second file is the manifest with `reply`;
with --hyp (the transcripts of a recognizer's answers) or --wrong_words (a share of words replaced) it is a folder with
hyp.jsonl for the scorer. A run that was stopped goes on; what gets no reply is counted. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.split_folders import split_pairs  # noqa: E402
from wenet_osum.dataset.drop import Dropped, note, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.decode.text_replies import SYSTEM, TextLlm, answer_all, with_wrong_words  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.records import Hypothesis  # noqa: E402
from wenet_osum.score.hypotheses import read_hypotheses  # noqa: E402
from wenet_osum.tasks import parse  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", required=True, help="folder or hub name of an LLM with a chat template")
    parser.add_argument("--system", default=SYSTEM, help=f'system text; default "{SYSTEM}"')
    parser.add_argument("--hyp", help="answers of a recognizer whose transcripts are asked instead")
    parser.add_argument("--wrong_words", type=float, help="share of words to replace, e.g. 0.1")
    parser.add_argument("--max_tokens", type=int, default=60, help="of a reply; longer ones are left out")
    parser.add_argument("--batch_size", type=int, default=16, help="transcripts asked at once")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("manifest", help="manifest or list with transcripts, or a folder with one per split")
    parser.add_argument("out", help="manifest; with --hyp or --wrong_words a folder")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        for manifest, out in split_pairs(args.manifest, args.out):
            _make(argparse.Namespace(**vars(args) | {"manifest": str(manifest), "out": str(out)}))
    except (ValueError, OSError) as error:
        print(f"make_replies.py: {error}", file=sys.stderr)
        return 1
    return 0


def _make(args: argparse.Namespace) -> None:
    dropped = Dropped()
    utterances = list(read_manifest(args.manifest))
    texts = {u.key: u.txt for u in utterances if u.txt}
    cascade = args.hyp or args.wrong_words
    if args.hyp:
        said, _ = read_hypotheses(args.hyp, parse("asr"))
        texts = {u.key: said[u.key].transcript for u in utterances if u.key in said and said[u.key].transcript}
    if args.wrong_words:
        texts = with_wrong_words(texts, args.wrong_words)
    llm = TextLlm.load(args.llm, args.system, args.max_tokens)
    kept = Path(args.out) / "replies.jsonl" if cascade else Path(f"{args.out}.replies.jsonl")
    replies = answer_all(llm, [*texts.values()], kept, args.batch_size)
    given = {}
    for utterance in utterances:
        reply, reason = replies[texts[utterance.key]] if utterance.key in texts else ("", "no transcript")
        if reason:
            note(dropped, utterance.key, reason)
        if reply if cascade else not reason:  # a cascade's answer counts also where it has no end
            given[utterance.key] = dataclasses.replace(utterance, reply=reply)
    if cascade:
        rows = (Hypothesis(k, parse("sttc").tags, u.reply, texts[k], reply=u.reply).to_json() for k, u in given.items())
        write_text(Path(args.out) / "hyp.jsonl", "".join(f"{row}\n" for row in rows))
    else:
        write_manifest(args.out, given.values())
    print(f"{args.out}: {len(given)} of {len(utterances)} utterances have a reply")
    if dropped:
        print(f"{'without a whole reply' if cascade else 'left out'}, by reason:\n{table(dropped)}")


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Write what a text LLM answers to each transcript: replies of STTC, or answers of a cascade.

    python tools/make_replies.py --llm Qwen/Qwen2.5-0.5B-Instruct data/train/manifest.jsonl \\
        data/replies/train.jsonl
    python tools/make_replies.py --llm Qwen/Qwen2.5-0.5B-Instruct --hyp exp/whisper/asr \\
        data/test.list exp/cascade/sttc

The LLM is asked in its own chat template, greedily. Without --hyp the second file is the manifest
with `reply`; with --hyp (the transcripts of a recognizer's answers) or --wrong_words (a share of
words replaced) it is a folder with hyp.jsonl for the scorer. A run that was stopped goes on; what
gets no reply is counted. Exit status: 0 done, 1 a fault.
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
from wenet_osum.dataset.manifest import read_manifest, unique, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402
from wenet_osum.decode.text_replies import (  # noqa: E402
    SYSTEM,
    TextLlm,
    answer_all,
    hold_asked,
    with_wrong_words,
)
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.records import Hypothesis, Utterance  # noqa: E402
from wenet_osum.score.hypotheses import read_hypotheses  # noqa: E402
from wenet_osum.tasks import parse  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        for manifest, out in split_pairs(args.manifest, args.out):
            _make(args, manifest, out)
    except (ValueError, OSError) as error:
        print(f"make_replies.py: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = args.add_argument
    add("--llm", required=True, help="folder or hub name of an LLM with a chat template")
    add("--system", default=SYSTEM, help=f'system text; default "{SYSTEM}"')
    add("--hyp", help="answers of a recognizer whose transcripts are asked instead")
    add("--wrong_words", type=float, help="share of words to replace, e.g. 0.1")
    add("--max_tokens", type=int, default=60, help="of a reply; longer ones are left out")
    add("--batch_size", type=int, default=64, help="transcripts asked at once")
    add("--threads", type=int, default=1, help="torch threads")
    dtypes = ("float32", "bfloat16")
    add("--dtype", choices=dtypes, help="default: bfloat16 on a GPU, else float32")
    add("manifest", help="manifest or list with transcripts, or a folder with one per split")
    add("out", help="manifest; with --hyp or --wrong_words a folder")
    return args


def _make(args: argparse.Namespace, manifest: Path, out: Path) -> None:
    """Answer the transcripts of one manifest and write the replies."""
    cascade = bool(args.hyp or args.wrong_words)
    dropped = Dropped()
    rows = unique(read_manifest(manifest, dropped), dropped)
    utterances = list(located(rows, manifest))
    texts = _transcripts(args, utterances)
    kept = out / "replies.jsonl" if cascade else Path(f"{out}.replies.jsonl")
    hold_asked(kept, args.llm, args.system, args.max_tokens)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    llm = TextLlm.load(args.llm, args.system, args.max_tokens, dtype)
    replies = answer_all(llm, list(texts.values()), kept, args.batch_size)

    given = _with_replies(utterances, texts, replies, cascade, dropped)
    if cascade:
        _write_answers(out / "hyp.jsonl", given, texts)
    else:
        write_manifest(out, given.values())
    print(f"{out}: {len(given)} of {len(utterances)} utterances have a reply")
    if dropped:
        title = "without a whole reply" if cascade else "left out"
        print(f"{title}, by reason:\n{table(dropped)}")


def _transcripts(args: argparse.Namespace, utterances: list[Utterance]) -> dict[str, str]:
    """Return by key what the LLM is asked: the transcripts, or what was heard of them."""
    texts = {}
    if args.hyp:
        heard, _ = read_hypotheses(args.hyp, parse("asr"))
        for utterance in utterances:
            answer = heard.get(utterance.key)
            if answer and answer.transcript:
                texts[utterance.key] = answer.transcript
    else:
        texts = {one.key: one.txt for one in utterances if one.txt}
    # A cascade of a recognizer that is worse than any at hand.
    if args.wrong_words:
        texts = with_wrong_words(texts, args.wrong_words)
    return texts


def _with_replies(
    utterances: list[Utterance],
    texts: dict[str, str],
    replies: dict[str, tuple[str, str]],
    cascade: bool,
    dropped: Dropped,
) -> dict[str, Utterance]:
    """Return the utterances that have a reply, by key; the others are counted by reason.

    ``replies``: (reply, what is wrong with it) by transcript.
    """
    given = {}
    for utterance in utterances:
        key = utterance.key
        if key in texts:
            reply, reason = replies[texts[key]]
        else:
            reply, reason = "", "no transcript"
        if reason:
            note(dropped, key, reason)
        # A cascade's answer counts also where it has no end; training takes whole ones alone.
        usable = reply if cascade else not reason
        if usable:
            given[key] = dataclasses.replace(utterance, reply=reply)
    return given


def _write_answers(path: Path, given: dict[str, Utterance], texts: dict[str, str]) -> None:
    """Write replies as the answers that the scorer reads."""
    tags = parse("sttc").tags
    lines = []
    for key, utterance in given.items():
        answer = Hypothesis(key, tags, utterance.reply, texts[key], reply=utterance.reply)
        lines.append(f"{answer.to_json()}\n")
    write_text(path, "".join(lines))


if __name__ == "__main__":
    sys.exit(main())

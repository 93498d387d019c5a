#!/usr/bin/env python3
"""Keep the utterances that a first pass of recognition agrees with and whose lengths fit.

    python tools/decode_whisper.py --model openai/whisper-base --list data/train/manifest.jsonl \\
        --language en --out exp/first_pass
    python tools/filter_by_wer.py --hyp exp/first_pass --normalizer en:whisper_en \\
        data/train/manifest.jsonl data/clean/manifest.jsonl

--hyp is a folder of recognize or decode_whisper.py, or a file of their lines or of ``key text``. A
rule is turned off by ``none``. What is left out is counted by its reason. Exit status: 0 done, 1 a
fault, 3 fewer than --min_share of the utterances remain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.first_pass import Rules, agreeing  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located, measure  # noqa: E402
from wenet_osum.score.hypotheses import read_hypotheses  # noqa: E402
from wenet_osum.tasks import parse  # noqa: E402

TOO_FEW = 3
RULES = {
    "max_wer": "highest word error rate of an utterance, %%",
    "min_s": "shortest audio, s",
    "max_s": "longest audio, s",
    "max_characters": "longest transcript",
    "max_s_per_character": "slowest speech, s",
}


def number(text: str) -> float | None:
    """Read the value of a rule; ``none`` turns it off."""
    return None if text == "none" else float(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        return _filter(args)
    except (ValueError, OSError) as error:
        print(f"filter_by_wer.py: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Make the command line; each rule is an option of its name."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--hyp", required=True, help="answers of the first pass")
    for name, about in RULES.items():
        usual = getattr(Rules, name)
        args.add_argument(
            f"--{name}",
            type=number,
            default=usual,
            help=f"{about} ({usual:g})",
        )
    args.add_argument("--normalizer", default="none", help="as that of score (none)")
    args.add_argument(
        "--min_share",
        type=float,
        default=0.0,
        help="share that has to remain (0)",
    )
    args.add_argument("manifest", help="JSON lines")
    args.add_argument("out", help="manifest to write")
    return args


def _filter(args: argparse.Namespace) -> int:
    """Read, choose, write and tell."""
    chosen = {name: getattr(args, name) for name in RULES}
    rules = Rules(normalizer=args.normalizer, **chosen)
    dropped = Dropped()
    rows = read_manifest(args.manifest, dropped)
    utterances = list(located(rows, args.manifest))
    unmeasured = Dropped()
    if rules.ask_for_duration:
        unmeasured = measure(utterances, args.manifest)
    answers, notes = read_hypotheses(args.hyp, parse("asr"))
    kept, left_out = agreeing(utterances, answers, rules)
    write_manifest(args.out, kept)

    for line in notes:
        print(f"note: {line}")
    for reason, count in unmeasured.items():
        print(f"note: {count} durations are not known: {reason}")
    hours = sum(utterance.duration or 0.0 for utterance in kept) / 3600
    print(f"{args.out}: {len(kept)} of {len(utterances)} utterances, {hours:.2f} h")
    counts = left_out + dropped
    if counts:
        print(f"left out, by reason:\n{table(counts)}")
    if utterances and not kept:
        print("filter_by_wer.py: none of them remains", file=sys.stderr)
        return TOO_FEW
    if len(kept) < args.min_share * len(utterances):
        print(f"filter_by_wer.py: less than {args.min_share:g} of them remain", file=sys.stderr)
        return TOO_FEW
    return 0


if __name__ == "__main__":
    sys.exit(main())

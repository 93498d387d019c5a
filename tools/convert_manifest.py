#!/usr/bin/env python3
"""Convert a corpus between forms: Kaldi, lhotse, Hugging Face datasets, WeNet's lists, ours.

    python tools/convert_manifest.py --from kaldi --to osum data/train data/train.jsonl
    python tools/convert_manifest.py --from shard --to lhotse data/train.list data/train_lhotse

A form is a file of wenet_osum/dataset/formats, which says what it holds. What a form has no place
for is counted. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.tasks.lid import language_code  # noqa: E402

FORMATS = "wenet_osum.dataset.formats"
NO_LANGUAGE = "language not given"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    dropped = Dropped()
    lost = Counter()
    try:
        written = _convert(args, dropped, lost)
    except (ValueError, OSError) as error:
        print(f"convert_manifest.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {written} utterances, {dropped.total()} could not be read")
    for title, counts in (("could not be read:", dropped), ("left behind:", lost)):
        if counts:
            print(title, table(counts), sep="\n")
    if not written and set(lost) == {NO_LANGUAGE}:
        print(
            "--lang keeps only utterances of these languages; this corpus states none, leave it out"
        )
    return 0 if written else 1


def parser() -> argparse.ArgumentParser:
    """Make the command line; forms are named by their files."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(lookup.names(FORMATS))
    args.add_argument("--from", dest="source", required=True, help=f"form of IN: {known}")
    args.add_argument("--to", dest="target", required=True, help="form of OUT: the same")
    args.add_argument("--audio_dir", help="where audio that IN holds inside goes (OUT_audio)")
    args.add_argument(
        "--lang",
        nargs="+",
        help="keep only utterances of these languages, e.g. zh en",
    )
    args.add_argument("input", metavar="IN")
    args.add_argument("out", metavar="OUT")
    return args


def _convert(args: argparse.Namespace, dropped: Dropped, lost: Counter) -> int:
    """Read one form and write the other; returns how many utterances were written."""
    source = lookup.load(FORMATS, args.source)
    target = lookup.load(FORMATS, args.target)
    if not hasattr(source, "read"):
        raise ValueError(f"form {args.source!r} can only be written")
    if not hasattr(target, "write"):
        raise ValueError(f"form {args.target!r} can only be read")
    audio_dir = args.audio_dir or f"{args.out}_audio"
    utterances = source.read(args.input, dropped, audio_dir)
    if args.lang:
        utterances = _of_languages(utterances, args.lang, lost)
    return target.write(args.out, utterances, lost)


def _of_languages(
    utterances: Iterable[Utterance], languages: list[str], lost: Counter
) -> Iterator[Utterance]:
    """Keep the utterances of some languages and count the others."""
    codes = [language_code(name) for name in languages]
    for utterance in utterances:
        if utterance.lang in codes:
            yield utterance
        elif utterance.lang:
            lost[f"language {utterance.lang}"] += 1
        else:
            lost[NO_LANGUAGE] += 1


if __name__ == "__main__":
    sys.exit(main())

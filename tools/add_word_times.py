#!/usr/bin/env python3
"""Give the utterances of a manifest word times: from TextGrid, MFA, CTM or Whisper-style JSON.

    python tools/add_word_times.py --format mfa --times aligned/ data/train/manifest.jsonl \\
        data/train/timed.jsonl

An alignment is found by the utterance's key, or by its recording's path or file name; of a
recording the utterance's segment is taken. A file name that several recordings or several
alignments have finds none. Utterances whose words do not fit are written without times and
counted by reason (--drop leaves them out). Exit status: 0 done, 1 a fault or no utterance got
times.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.corpus.alignments import (  # noqa: E402
    FORMATS,
    Alignments,
    add_words,
    read_alignments,
)
from wenet_osum.corpus.match_words import Unmatched  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", required=True, help=", ".join(lookup.names(FORMATS)))
    parser.add_argument("--times", required=True, help="alignment file, or folder of them")
    parser.add_argument(
        "--drop", action="store_true", help="leave out utterances that get no times"
    )
    parser.add_argument("manifest")
    parser.add_argument("out")
    args = parser.parse_args(argv)
    counts: Counter = Counter()
    faults: Counter = Counter()
    dropped = Dropped()
    try:
        alignments = read_alignments(args.times, args.format, faults)
        rows = read_manifest(args.manifest, Dropped())
        alignments.note_recordings(rows)
        made = _timed(args, alignments, counts, faults, dropped)
        written = write_manifest(args.out, made)
    except (ValueError, OSError) as error:
        print(f"add_word_times.py: {error}", file=sys.stderr)
        return 1
    timed = f"{counts['timed']} with word times, {counts['words']} words"
    print(f"{args.out}: {written} utterances, {timed}")
    print(f"{counts['extra']} timed words say nothing of a transcript and were passed over")
    if faults:
        print(f"without word times, by reason:\n{table(faults)}")
    if dropped:
        print(f"left out:\n{table(dropped)}")
    return 0 if counts["timed"] else 1


def _timed(
    args: argparse.Namespace,
    alignments: Alignments,
    counts: Counter,
    faults: Counter,
    dropped: Dropped,
) -> Iterator[Utterance]:
    """Yield the utterances with their times; those without are counted by reason."""
    rows = read_manifest(args.manifest, dropped)
    for utterance in located(rows, args.manifest):
        try:
            words, extra = add_words(utterance, alignments)
            counts.update(timed=1, words=len(words), extra=extra)
            yield dataclasses.replace(utterance, words=words)
        except Unmatched as fault:
            faults[fault.reason] += 1
            if not args.drop:
                yield utterance


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Convert a corpus between the forms it may have: Kaldi folder, lhotse, Hugging Face datasets,
WeNet's raw list, tar shards, our manifest.

    python tools/convert_manifest.py --from kaldi --to osum data/train data/train.jsonl
    python tools/convert_manifest.py --from shard --to lhotse data/train.list data/train_lhotse

A form is a file of wenet_osum/dataset/formats, which says what it holds. What a form has no place
for is counted. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402

FORMATS = "wenet_osum.dataset.formats"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(lookup.names(FORMATS))
    parser.add_argument("--from", dest="source", required=True, help=f"form of IN: {known}")
    parser.add_argument("--to", dest="target", required=True, help="form of OUT: the same")
    parser.add_argument("--audio_dir", help="where audio that IN holds inside goes (OUT_audio)")
    parser.add_argument(
        "--lang", nargs="+", help="keep only utterances of these languages, e.g. zh en"
    )
    parser.add_argument("input", metavar="IN")
    parser.add_argument("out", metavar="OUT")
    args = parser.parse_args(argv)
    dropped, lost = Dropped(), Counter()
    try:
        source, target = (lookup.load(FORMATS, name) for name in (args.source, args.target))
        utterances = source.read(args.input, dropped, args.audio_dir or f"{args.out}_audio")
        if args.lang:
            utterances = (
                u
                for u in utterances
                if u.lang in args.lang or lost.update([f"language {u.lang or 'not given'}"])
            )
        written = target.write(args.out, utterances, lost)
    except (ValueError, OSError) as error:
        print(f"convert_manifest.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {written} utterances, {dropped.total()} could not be read")
    for title, counts in (("could not be read:", dropped), ("left behind:", lost)):
        if counts:
            print(title, table(counts), sep="\n")
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Join Kaldi's wav.scp and text into a raw list, a JSON object a line, as WeNet's tool does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.kaldi_files import read_kaldi  # noqa: E402
from wenet_osum.dataset.manifest import write_manifest  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", help="Kaldi segments file: key recording start_s end_s")
    parser.add_argument("wav_file", help="wav.scp: key path")
    parser.add_argument("text_file", help="text: key transcript")
    parser.add_argument("output_file", help="raw list to write")
    args = parser.parse_args(argv)

    dropped = Dropped()
    try:
        utterances = read_kaldi(args.wav_file, args.text_file, args.segments, dropped)
        count = write_manifest(args.output_file, utterances)
    except (ValueError, OSError) as error:
        print(f"make_raw_list.py: {error}", file=sys.stderr)
        return 1

    print(f"{args.output_file}: {count} utterances, {dropped.total()} left out")
    if dropped:
        print(table(dropped))
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())

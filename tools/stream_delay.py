#!/usr/bin/env python3
"""Measure how late words come when sound is heard while it comes in, and what that costs in WER.

    python tools/stream_delay.py --model exp/4_lora/final --list data/test/asr.list --step_s 1 \\
        --threads 2 --out exp/4_lora/stream.json

Sound arrives in chunks in the time of the recording; the time that the model takes is measured and
added: what arrives while it works waits, and is heard together. The delay of a word is the time
from its end in the recording, by the word times of the list, to the moment it is said for good.
Words of the reference that were not recognized have none, and are counted. Beside it stands the WER
of the stream's text and of the same recordings decoded as whole files in the same run. Exit status:
0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.files import write_text  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    from wenet_osum.decode import options

    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = args.add_argument
    add("--model", required=True, help="model folder or hub name")
    add("--list", required=True, help="manifest or data.list of shards, with word times")
    add("--chunk_s", type=float, default=0.2, help="seconds of a chunk of sound (0.2)")
    add("--step_s", type=float, default=1.0, help="new sound that is decoded, s (1)")
    add("--pause_s", type=float, default=0.8, help="pause that ends an utterance, s (0.8)")
    add("--normalizer", default="basic", help="as that of score (basic)")
    add("--most", type=int, help="most utterances; default: all")
    add("--out", help="JSON file for the figures")
    options.add_arguments(args)
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    from wenet_osum.decode import incremental, load
    from wenet_osum.decode.speech import Transcriber
    from wenet_osum.decode.stream_delay import measure, recordings, table

    args = parser().parse_args(argv)
    args.task = "asr"
    try:
        model = Transcriber(load.recognizer(args))
        asked = model.asked()
        why = incremental.refusal(asked.task, asked.options)
        if why:
            raise ValueError(why)
        totals = measure(model, args, recordings(args.list, args.most))
    except (ValueError, OSError) as error:
        print(f"stream_delay.py: {error}", file=sys.stderr)
        return 1
    figures = table(totals)
    for name, value in figures.items():
        shown = "none" if value is None else f"{value:.3f}".removesuffix(".000")
        print(f"{name} {shown}")
    if args.out:
        text = json.dumps(figures, indent=1)
        write_text(args.out, f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Transcribe a list with a published Whisper and its own decoder, to compare a recipe with.

    python tools/decode_whisper.py --model openai/whisper-base --list data/test/asr.list \\
        --language en --out exp/whisper/asr
    python -m wenet_osum.bin.score --ref data/test/asr.list --hyp exp/whisper/asr --task asr \\
        --normalizer whisper_en --out exp/whisper/score

Audio is padded to 30 s, as Whisper was trained; longer audio is refused and counted. A run that was
stopped goes on. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.decode.jobs import read_list  # noqa: E402
from wenet_osum.decode.whisper_own import transcribe  # noqa: E402
from wenet_osum.decode.write import SETTINGS, fingerprint, hold_settings  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="openai/whisper-base", help="folder or hub name")
    parser.add_argument("--list", required=True, help="manifest or data.list of shards")
    parser.add_argument("--language", help="such as en or zh; default: Whisper decides")
    parser.add_argument("--num_beams", type=int, default=1, help="beams; 1 is greedy")
    parser.add_argument("--batch_size", type=int, default=8, help="utterances per batch")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", required=True, help="folder for hyp.jsonl")
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    path = Path(args.out) / "hyp.jsonl"
    try:
        jobs, _ = read_list(args.list)
        settings = {
            "model": args.model,
            "weights": fingerprint(args.model),
            "language": args.language,
            "num_beams": args.num_beams,
        }
        hold_settings(path.parent / SETTINGS, settings, begun=path.exists())
        written = transcribe(
            jobs,
            path,
            args.model,
            args.batch_size,
            language=args.language,
            num_beams=args.num_beams,
        )
    except (ValueError, OSError) as error:
        print(f"decode_whisper.py: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {written} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(main())

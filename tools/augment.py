#!/usr/bin/env python3
"""Write augmented copies of a manifest's recordings: noise, reverberation, codec, level, …

    python tools/augment.py \\
        --effects '[{name: noise, snr_db: [5, 20]}, {name: codec, prob: 0.5}]' --copies 2 \\
        --wav_dir aug/wav train.jsonl aug/train.jsonl

An effect is a file of wenet_osum/dataset/effects, its settings are in that file. Training does the
same on the fly with `augment.effects` in its yaml. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.dataset.augment import EFFECTS  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import Degrade, rewrite  # noqa: E402
from wenet_osum.dataset.robustness import check  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    dropped = Dropped()
    try:
        effects = _effects(args.effects)
        written = write_manifest(args.out, _copies(args, effects, dropped))
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"augment.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {written} utterances, {dropped.total()} left out")
    if dropped:
        print(table(dropped))
    return 0 if written else 1


def parser() -> argparse.ArgumentParser:
    """Make the command line; effects are named by their files."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--effects",
        required=True,
        help=f"yaml list of {{name, prob, settings}}; names: {', '.join(lookup.names(EFFECTS))}",
    )
    args.add_argument(
        "--copies",
        type=int,
        default=1,
        help="augmented copies per utterance, keys KEY-aug1, … (1)",
    )
    args.add_argument("--wav_dir", required=True, help="folder for the new recordings")
    args.add_argument("--seed", type=int, default=777)
    args.add_argument("--jobs", type=int, default=1, help="processes (1)")
    args.add_argument("manifest")
    args.add_argument("out")
    return args


def _effects(text: str) -> list[dict]:
    """Read the effects and check their settings; raises ValueError or YAMLError."""
    effects = yaml.safe_load(text)
    listed = isinstance(effects, list) and all(isinstance(row, dict) for row in effects)
    if not effects or not listed:
        raise ValueError(f"--effects must be a yaml list of {{name, …}}, got {text!r}")
    check({"--effects": effects})
    return effects


def _copies(args: argparse.Namespace, effects: list[dict], dropped: Dropped) -> Iterator[Utterance]:
    """Yield the copies of all utterances; each copy draws with a seed of its own."""
    for copy in range(1, args.copies + 1):
        yield from rewrite(
            read_manifest(args.manifest, dropped),
            Degrade(tuple(effects), f"-aug{copy}"),
            args.wav_dir,
            dropped,
            args.seed + copy - 1,
            args.jobs,
            args.manifest,
        )


if __name__ == "__main__":
    sys.exit(main())

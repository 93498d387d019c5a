#!/usr/bin/env python3
"""Write degraded copies of a test list, one list per condition, for a robustness table.

    python tools/make_robust_lists.py data/test/manifest.jsonl data/robust
    for c in $(cat data/robust/conditions); do
      python -m wenet_osum.bin.recognize --model exp/4_lora/final --list data/robust/$c.jsonl \\
          --task asr --out exp/4_lora/robust/$c
      python -m wenet_osum.bin.score --ref data/robust/$c.jsonl --hyp exp/4_lora/robust/$c \\
          --task asr --out exp/4_lora/robust_score/$c
    done
    python tools/robust_table.py --conditions data/robust/conditions exp/4_lora/robust_score

The lists are OUT/CONDITION.jsonl. Keys, labels and word times are those of the input; what is drawn
(noise, rooms) depends on --seed and the key, so lists are the same on every machine. The conditions
are those of wenet_osum/dataset/robustness.py, or a yaml file's. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import Degrade, rewrite  # noqa: E402
from wenet_osum.dataset.robustness import CONDITIONS, read_conditions  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    out = Path(args.out)
    failed = 0
    try:
        known = read_conditions(args.conditions) if args.conditions else CONDITIONS
        names = args.only or list(known)
        for name in names:
            if name not in known:
                raise ValueError(lookup.unknown("condition", name, list(known)))
            failed += _degrade(args, out, name, Degrade(tuple(known[name])))
        lines = [f"{name}\n" for name in names]
        write_text(out / "conditions", "".join(lines))
    except (ValueError, OSError) as error:
        print(f"make_robust_lists.py: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--conditions",
        help="yaml file {condition: [{name: effect, settings}, …]} instead of the built-in ones",
    )
    args.add_argument(
        "--only",
        nargs="+",
        help=f"only these conditions; built in: {', '.join(CONDITIONS)}",
    )
    args.add_argument("--seed", type=int, default=777)
    args.add_argument("--jobs", type=int, default=1, help="processes (1)")
    args.add_argument("manifest", help="test list as a manifest")
    args.add_argument("out", help="folder for the lists and their recordings")
    return args


def _degrade(args: argparse.Namespace, out: Path, name: str, change: Degrade) -> int:
    """Write the list of one condition; returns how many utterances were left out."""
    dropped = Dropped()
    made = rewrite(
        read_manifest(args.manifest, dropped),
        change,
        out / "wav" / name,
        dropped,
        args.seed,
        args.jobs,
        args.manifest,
    )
    path = out / f"{name}.jsonl"
    written = write_manifest(path, made)
    print(f"{path}: {written} utterances, {dropped.total()} left out")
    if dropped:
        print(table(dropped))
    return dropped.total()


if __name__ == "__main__":
    sys.exit(main())

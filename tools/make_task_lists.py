#!/usr/bin/env python3
"""Write a raw list and a reference text per task: the utterances that have all its fields.

    python tools/make_task_lists.py --tasks "asr ser" data/dev data/test
    python tools/make_task_lists.py --tasks "asr ser <AGE><GENDER>" --limit 240 data/test.jsonl \\
        data/test

A folder that holds manifest.jsonl gets ser.list beside it, to be decoded and scored, and ser.text,
``key target`` per line, for compute-wer.py and compute-acc.py. With a manifest and a folder, they
are written into the folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.task_lists import choose, reference_lines  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", required=True, help="names, or tags without inner spaces")
    parser.add_argument("--limit", type=int, help="utterances per task, taken at even distances")
    parser.add_argument("paths", nargs="+", help="folders, or one manifest and one folder")
    args = parser.parse_args(argv)
    try:
        for manifest, folder in _pairs(args.paths):
            write_lists(manifest, folder, args.tasks.split(), args.limit)
    except (ValueError, OSError) as error:
        print(f"make_task_lists.py: {error}", file=sys.stderr)
        return 1
    return 0


def _pairs(paths: list[str]) -> list[tuple[Path, Path]]:
    """Return each manifest with the folder its lists go into."""
    first = Path(paths[0])
    if first.is_file() and len(paths) == 2:
        folder = Path(paths[1])
        return [(first, folder)]
    pairs = []
    for path in paths:
        folder = Path(path)
        pairs.append((folder / "manifest.jsonl", folder))
    return pairs


def write_lists(manifest: Path, folder: Path, names: list[str], limit: int | None) -> None:
    """Write the list and the reference text of each task into a folder."""
    dropped = Dropped()
    rows = read_manifest(manifest, dropped)
    found = located(rows, manifest)
    utterances = list(found)
    for name in names:
        chosen = choose(utterances, name, limit)
        lines = reference_lines(chosen, name)
        path = folder / f"{name}.list"
        write_manifest(path, chosen)
        write_text(path.with_suffix(".text"), lines)
        print(f"{path}: {len(chosen)} of {len(utterances)} utterances")
    if dropped:
        print(f"{manifest}, left out:\n{table(dropped)}")


if __name__ == "__main__":
    sys.exit(main())

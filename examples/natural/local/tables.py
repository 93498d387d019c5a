"""What the scripts that write a table of several runs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from wenet_osum.files import write_text
from wenet_osum.records import Score
from wenet_osum.score import score_json


def score_of(folder: Path, task: str, metric: str) -> Score | None:
    """Return a score of what ``score`` wrote, of all utterances where there are subsets."""
    _, scores = score_json.read(folder / "score.json")
    found = None
    for score in scores:
        wanted = score.task == task and score.metric == metric
        if wanted and (found is None or score.subset == "all"):
            found = score
    return found


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Write a table of markdown."""
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for row in rows:
        line = _line(row)
        lines.append(line)
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    inside = " | ".join(cells)
    return f"| {inside} |"


def arguments(doc: str, names: list[str]) -> argparse.Namespace:
    """Read --runs and --out, and options that are lists with spaces between their ``names``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=Path, required=True, help="folder with one per run")
    for name in names:
        add(f"--{name}", type=str.split, required=True, help="with spaces between them")
    add("--out", type=Path, required=True)
    return parser.parse_args()


def publish(text: str, out: Path) -> None:
    """Write a table to its file, and print it."""
    write_text(out, f"{text}\n")
    print(text)

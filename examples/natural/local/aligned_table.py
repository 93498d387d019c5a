#!/usr/bin/env python3
"""One table of what aligned.sh has trained: word error rate and minutes of training of each arm.

    python local/aligned_table.py --runs exp/aligned --arms "none first" --seeds "1 2 3" \\
        --out table.md

Minutes are those of training over all starts, of the arm `first` with those of its alignment.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

from tables import arguments, markdown, publish, score_of

from wenet_osum.train import checkpoint

HEAD = ["arm", "WER %, mean", "of each seed", "minutes", "loss on dev"]
ALIGNMENT = {"first": "align"}  # arm → what was trained before it


def wer(run: Path) -> float:
    """Return the word error rate of a run, %. Raises ValueError where none was scored."""
    score = score_of(run / "score", "asr", "wer")
    if score is None:
        raise ValueError(f"{run}: no word error rate")
    return score.value


def minutes(run: Path) -> float:
    """Return how long a run has trained, pauses between its starts left out."""
    newest = checkpoint.complete(run)[-1]
    state = checkpoint.read_state(newest)
    return state.seconds / 60


def dev_loss(run: Path) -> float:
    """Return the last loss on dev, nats per token."""
    path = run / "log.jsonl"
    text = path.read_text(encoding="utf-8")
    losses = []
    for line in text.splitlines():
        row = json.loads(line)
        if row.get("split") == "dev":
            losses.append(row["loss"])
    return losses[-1]


def row(arm: str, runs: Path, seeds: list[str]) -> list[str]:
    """Return the cells of an arm."""
    own = [runs / f"{arm}.{seed}" for seed in seeds]
    errors = [wer(run) for run in own]
    times = [minutes(run) for run in own]
    losses = [dev_loss(run) for run in own]
    before = ALIGNMENT.get(arm)
    if before:
        for seed in seeds:
            alignment = runs / f"{before}.{seed}"
            time = minutes(alignment)
            times.append(time)

    each = [f"{error:.1f}" for error in errors]
    together = ", ".join(each)
    total = sum(times) / len(seeds)
    return [
        arm,
        f"{mean(errors):.1f}",
        together,
        f"{total:.1f}",
        f"{mean(losses):.2f}",
    ]


def table(runs: Path, arms: list[str], seeds: list[str]) -> str:
    """Return the table as markdown."""
    rows = [row(arm, runs, seeds) for arm in arms]
    return markdown(HEAD, rows)


def main() -> int:
    """Write the table and print it."""
    args = arguments(__doc__, ["arms", "seeds"])
    text = table(args.runs, args.arms, args.seeds)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

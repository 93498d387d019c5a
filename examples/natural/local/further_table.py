#!/usr/bin/env python3
"""One table of what further.sh has trained: words that are told, recordings without speech, text.

    python local/further_table.py --runs exp/further --arms "before plain told kept" --out table.md

A row is a model. Its 95 % intervals, where score.json has them, resample speakers.
"""

from __future__ import annotations

import json
from pathlib import Path

from tables import arguments, markdown, publish, score_of

# Column → (test set in the folder of a model, metric).
FIGURES = {
    "WER %, untold": ("untold/hot300", "wer"),
    "WER %, told": ("told/hot300", "wer"),
    "WER %, told, with CTC": ("told_joint/hot300", "wer"),
    "rare words F1 %, untold": ("untold/hot300", "hotword_f1"),
    "F1 %, told": ("told/hot300", "hotword_f1"),
    "F1 %, told, with CTC": ("told_joint/hot300", "hotword_f1"),
    "leaks %, untold": ("untold/hot300", "hotword_leaks"),
    "leaks %, told": ("told/hot300", "hotword_leaks"),
    "leaks %, told, with CTC": ("told_joint/hot300", "hotword_leaks"),
    "words invented per minute": ("untold/silence", "invented_words"),
}
TEXT = ["text: same replies %", "perplexity, times", "divergence, nats"]


def figure(run: Path, test: str, metric: str) -> str:
    """Return a figure of a model with its interval; nothing where the set was not decoded."""
    folder = run / test / "score"
    if not folder.exists():
        return ""
    score = score_of(folder, "asr", metric)
    if score is None:
        return ""
    interval = f"{score.low:.1f}–{score.high:.1f}"
    return f"{score.value:.1f} ({interval})"


def text_figures(run: Path) -> list[str]:
    """Return the figures of text_check.py."""
    path = run / "text/text.json"
    written = path.read_text(encoding="utf-8")
    found = json.loads(written)
    growth = found["perplexity"] / found["perplexity_before"]
    return [
        "{exact:.0f}".format(**found),
        f"{growth:.2f}",
        "{kl:.3f}".format(**found),
    ]


def table(runs: Path, arms: list[str]) -> str:
    """Return the table as markdown."""
    columns = ["model", *FIGURES, *TEXT]
    rows = []
    for arm in arms:
        run = runs / arm
        cells = [arm]
        for test, metric in FIGURES.values():
            cell = figure(run, test, metric)
            cells.append(cell)
        cells += text_figures(run)
        rows.append(cells)
    return markdown(columns, rows)


def main() -> int:
    """Write the table and print it."""
    args = arguments(__doc__, ["arms"])
    text = table(args.runs, args.arms)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

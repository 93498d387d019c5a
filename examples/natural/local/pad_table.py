#!/usr/bin/env python3
"""One table of what pads.sh has decoded: word error rate and speed for each pad_s.

    python local/pad_table.py --runs exp/pads --pads "0 5 30" \\
        --out exp/pads/table.md

The real-time factor is the seconds that decoding took for a second of speech.
"""

from __future__ import annotations

import re
from pathlib import Path

from tables import arguments, markdown, publish, score_of

HEAD = ["silence up to, s", "WER %", "95 % interval", "real-time factor"]
FACTOR = re.compile(r"RTF ([\d.]+)")


def row(pad: str, run: Path) -> list[str]:
    """Return the cells of one ``pad_s``. Raises ValueError where nothing was scored."""
    score = score_of(run / "score", "asr", "wer")
    if score is None:
        raise ValueError(f"{run}: no word error rate")
    low = score.low
    high = score.high
    interval = f"{low:.1f}–{high:.1f}"
    path = run / "log"
    log = path.read_text(encoding="utf-8")
    factors = FACTOR.findall(log)
    factor = factors[-1]
    value = score.value
    return [pad, f"{value:.1f}", interval, factor]


def main() -> None:
    """Write the table, and print it."""
    args = arguments(__doc__, ["pads"])
    rows = []
    for pad in args.pads:
        run = args.runs / pad
        cells = row(pad, run)
        rows.append(cells)
    text = markdown(HEAD, rows)
    publish(text, args.out)


if __name__ == "__main__":
    main()

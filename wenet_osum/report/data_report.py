"""Show what lists hold, as one HTML page that needs no network.

The page tells hours, durations and labels of each list, and what lists share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from wenet_osum.corpus.split import KINDS, check_disjoint, counted_columns, label_of, values
from wenet_osum.corpus.statistics import durations, hours
from wenet_osum.records import Utterance
from wenet_osum.report import page
from wenet_osum.report.bars import bars, histogram

MOST_ROWS = 24  # labels of a field that are shown
UNKNOWN = "(not known)"  # shown where a label is missing
OVERVIEW = [
    "list",
    ">utterances",
    ">hours",
    ">speakers",
    ">sentences",
    ">with word times",
    ">shortest, s",
    ">median, s",
    ">longest, s",
]


def report(
    splits: dict[str, list[Utterance]],
    title: str,
    disjoint: Sequence[str] = (),
    left_out: dict[str, Counter] | None = None,
) -> str:
    """Write the page. ``left_out`` gives, per list, why utterances were dropped.

    Raises ValueError when lists share what ``disjoint`` forbids; other overlap is told on the page.
    """
    notes = check_disjoint(splits, disjoint)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _overview(splits),
        _leakage(notes, disjoint),
        _balance(splits),
    ]
    left_out = left_out or {}
    for name, utterances in splits.items():
        reasons = left_out.get(name, Counter())
        section = _list(name, utterances, reasons)
        parts.append(section)
    body = "\n".join(parts)
    return page.document(title, body)


def _overview(splits: dict[str, list[Utterance]]) -> str:
    rows = []
    for name, utterances in splits.items():
        timed = sum(utterance.words is not None for utterance in utterances)
        row = [
            escape(name),
            str(len(utterances)),
            f"{hours(utterances):.3f}",
            str(len(values(utterances, "speaker"))),
            str(len(values(utterances, "sentence"))),
            str(timed),
        ]

        # shortest, median and longest
        seconds = durations(utterances) or [0.0]
        for share in (0, 0.5, 1):
            quantile = np.quantile(seconds, share)
            row.append(f"{quantile:.2f}")
        rows.append(row)
    table = page.table(OVERVIEW, rows)
    return f"<section><h2>Lists</h2>{table}</section>"


def _leakage(notes: list[str], disjoint: Sequence[str]) -> str:
    declared = ""
    if disjoint:
        kinds = escape(", ".join(disjoint))
        declared = f"<p>Disjoint, as declared: {kinds}.</p>"

    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    if items:
        shared = f"<ul>{items}</ul>"
    else:
        kinds = ", ".join(KINDS)
        shared = f'<p class="dim">The lists share no {kinds}.</p>'
    return f"<section><h2>What lists share</h2>{declared}{shared}</section>"


def _balance(splits: dict[str, list[Utterance]]) -> str:
    """Write a table per field: each label's share of each list, side by side."""
    parts = []
    for column in counted_columns():
        counts = {}
        for name, utterances in splits.items():
            counts[name] = _label_counts(utterances, column)
        total = sum(counts.values(), Counter())
        if _is_labeled(total):
            parts.append(_balance_table(column, splits, counts, total))
    tables = "".join(parts) or "<p class=dim>No labels.</p>"
    return f"<section><h2>Balance</h2>{tables}</section>"


def _balance_table(
    column: str,
    splits: dict[str, list[Utterance]],
    counts: dict[str, Counter],
    total: Counter,
) -> str:
    head = [column]
    for name in splits:
        head.append(f">{escape(name)}")

    rows = []
    for label, _ in total.most_common(MOST_ROWS):
        row = [escape(label or UNKNOWN)]
        for name, utterances in splits.items():
            count = counts[name][label]
            row.append(_share(count, len(utterances)))
        rows.append(row)

    more = ""
    hidden = len(total) - len(rows)
    if hidden > 0:
        more = f'<p class="dim small">and {hidden} more</p>'
    return f"<h3>{column}</h3>{page.table(head, rows)}{more}"


def _label_counts(utterances: list[Utterance], column: str) -> Counter:
    """Count the labels of a field; utterances without one are counted under ""."""
    return Counter(label_of(utterance, column) for utterance in utterances)


def _is_labeled(counts: Counter) -> bool:
    return any(label for label in counts)


def _share(count: int, total: int) -> str:
    percent = 0.0
    if total:
        percent = 100 * count / total
    return f"{count} ({percent:.1f} %)"


def _list(name: str, utterances: list[Utterance], left_out: Counter) -> str:
    """Write the section of one list: what was left out of it, durations and labels."""
    pieces = []
    seconds = durations(utterances)
    if seconds:
        pieces.append(histogram(seconds, f"{name}: duration, s"))
    for column in counted_columns():
        counts = _label_counts(utterances, column)
        if _is_labeled(counts):
            shown = {}
            for label, count in counts.most_common(MOST_ROWS):
                shown[label or UNKNOWN] = count
            title = f"{name}: {column}"
            pieces.append(bars(shown, title))

    reasons = dict(left_out.most_common())
    dropped = page.chips(reasons, set(reasons))
    head = f"<h2>{escape(name)}</h2>"
    side = ""
    for piece in pieces:
        side += f"<div>{piece}</div>"
    return f'<section>{head}{dropped}<div class="side">{side}</div></section>'

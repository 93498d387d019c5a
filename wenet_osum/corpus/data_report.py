"""Show what lists hold, as one HTML page that needs no network.

The page tells hours, durations and labels of each list, and what lists share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from wenet_osum.corpus.split import KINDS, check_disjoint, counted_columns, label_of, values
from wenet_osum.records import Utterance
from wenet_osum.score import page, svg

BINS = 24  # of a duration histogram
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


def summary(splits: dict[str, list[Utterance]]) -> list[str]:
    """Write one line per list, for the terminal."""
    lines = []
    for name, utterances in splits.items():
        facts = [
            f"{len(utterances)} utterances",
            f"{hours(utterances):.3f} h",
            f"{len(values(utterances, 'speaker'))} speakers",
        ]
        line = ", ".join(facts)
        lines.append(f"{name}: {line}")
    return lines


def hours(utterances: list[Utterance]) -> float:
    """Sum up the utterances whose duration is known, in hours."""
    seconds = _durations(utterances)
    return sum(seconds, 0.0) / 3600


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
        seconds = _durations(utterances) or [0.0]
        for share in (0, 0.5, 1):
            quantile = np.quantile(seconds, share)
            row.append(f"{quantile:.2f}")
        rows.append(row)
    table = page.table(OVERVIEW, rows)
    return f"<section><h2>Lists</h2>{table}</section>"


def _durations(utterances: list[Utterance]) -> list[float]:
    """Return the durations that are known, s."""
    return [utterance.duration for utterance in utterances if utterance.duration]


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
    seconds = _durations(utterances)
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


def histogram(seconds: list[float], title: str, width: int = 430, height: int = 190) -> str:
    """Draw how many utterances have which duration, as an SVG.

    The last bar holds everything beyond the 99.5 % quantile.
    """
    longest = float(np.quantile(seconds, 0.995))
    top = max(longest, 1e-3)
    clipped = np.minimum(seconds, top)
    counts, edges = np.histogram(clipped, BINS, (0.0, top))

    left = 10
    base = height - 30
    step = (width - 20) / BINS
    title_line = svg.label(left, 17, title, "start", "strong")
    parts = [title_line]
    for i, count in enumerate(counts):
        tall = (base - 30) * count / counts.max()
        if i < BINS - 1:
            last = f"to {edges[i + 1]:.2f} s"
        else:
            last = "and more"
        bar = _bar(
            x=left + step * i + 0.5,
            y=base - tall,
            width=step - 1,
            height=tall,
            tooltip=f"{edges[i]:.2f} s {last}: {count}",
        )
        parts.append(bar)

    # Every sixth part of the axis has its seconds under it.
    y = height - 12
    for i in range(0, BINS + 1, BINS // 6):
        x = left + step * i
        text = f"{edges[i]:.3g}"
        parts.append(svg.label(x, y, text, "middle", "dim small"))
    return _svg(width, height, parts, title)


def bars(counts: dict[str, int], title: str, width: int = 430) -> str:
    """Draw one bar per label with its count, as an SVG."""
    widest = max(svg.text_width(label) for label in counts)
    left = 16 + widest
    height = 30 + 22 * len(counts)
    most = max(counts.values())

    title_line = svg.label(10, 17, title, "start", "strong")
    parts = [title_line]
    top = 30
    for label, count in counts.items():
        length = (width - left - 70) * count / most
        end = left + length + 6
        line = top + 13
        bar = _bar(
            x=left,
            y=top + 2,
            width=length,
            height=15,
            tooltip=f"{label}: {count}",
        )
        name = svg.label(left - 6, line, label, "end")
        number = svg.label(end, line, str(count), "start", "dim small")
        parts += [name, bar, number]
        top += 22
    return _svg(width, height, parts, title)


def _bar(x: float, y: float, width: float, height: float, tooltip: str) -> str:
    """Draw a bar, at least half a pixel wide, that tells ``tooltip`` under the pointer."""
    width = max(width, 0.5)
    attributes = [
        f'x="{x:.1f}"',
        f'y="{y:.1f}"',
        f'width="{width:.1f}"',
        f'height="{height:.1f}"',
        'rx="2"',
        'style="fill:var(--accent);fill-opacity:.75"',
    ]
    shape = " ".join(attributes)
    text = escape(tooltip)
    return f"<g><title>{text}</title><rect {shape}/></g>"


def _svg(width: float, height: float, parts: list[str], name: str) -> str:
    """Put the parts into one picture, with ``name`` for those who do not see it."""
    label = escape(name, quote=True)
    attributes = [
        'xmlns="http://www.w3.org/2000/svg"',
        f'viewBox="0 0 {width:.0f} {height:.0f}"',
        f'width="{width:.0f}"',
        f'height="{height:.0f}"',
        'role="img"',
        f'aria-label="{label}"',
    ]
    head = " ".join(attributes)
    body = "".join(parts)
    return f"<svg {head}>{body}</svg>"

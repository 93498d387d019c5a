"""What lists hold, as one HTML page that needs no network: hours, durations and labels of each list, and what lists share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from wenet_osum.corpus.split import KINDS, check_disjoint, counted_columns, label_of, values
from wenet_osum.records import Utterance
from wenet_osum.score import page, plots

BINS = 24  # of a duration histogram
MOST_ROWS = 24  # labels of a field that are shown


def report(splits: dict[str, list[Utterance]], title: str, disjoint: Sequence[str] = (), left_out: dict[str, Counter] | None = None) -> str:
    """The page. Raises ValueError when lists share what ``disjoint`` forbids; other overlap is told in it."""
    notes = check_disjoint(splits, disjoint)
    parts = [f"<h1>{escape(title)}</h1>", _overview(splits), _leakage(splits, notes, disjoint), _balance(splits)]
    parts += [_list(name, rows, (left_out or {}).get(name, Counter())) for name, rows in splits.items()]
    return page.document(title, "\n".join(parts))


def summary(splits: dict[str, list[Utterance]]) -> list[str]:
    """A line a list, for the terminal."""
    return [f"{name}: {len(rows)} utterances, {hours(rows):.3f} h, {len(values(rows, 'speaker'))} speakers" for name, rows in splits.items()]


def hours(rows: list[Utterance]) -> float:
    """Hours of the utterances whose duration is known."""
    return sum(u.duration or 0.0 for u in rows) / 3600


def _overview(splits: dict[str, list[Utterance]]) -> str:
    rows = []
    for name, found in splits.items():
        seconds = np.array([u.duration for u in found if u.duration] or [0.0])
        marks = [f"{np.quantile(seconds, q):.2f}" for q in (0, 0.5, 1)]
        timed = sum(u.words is not None for u in found)
        counts = [len(found), f"{hours(found):.3f}", len(values(found, "speaker")), len(values(found, "sentence")), timed]
        rows.append([escape(name), *map(str, counts), *marks])
    head = ["list", ">utterances", ">hours", ">speakers", ">sentences", ">with word times", ">shortest, s", ">median, s", ">longest, s"]
    return f"<section><h2>Lists</h2>{page.table(head, rows)}</section>"


def _leakage(splits: dict[str, list[Utterance]], notes: list[str], disjoint: Sequence[str]) -> str:
    held = f"<p>Disjoint, as declared: {escape(', '.join(disjoint))}.</p>" if disjoint else ""
    found = "".join(f"<li>{escape(note)}</li>" for note in notes)
    nothing = f'<p class="dim">The lists share no {", ".join(KINDS)}.</p>'
    return f"<section><h2>What lists share</h2>{held}{f'<ul>{found}</ul>' if found else nothing}</section>"


def _balance(splits: dict[str, list[Utterance]]) -> str:
    """Each label's share of each list side by side."""
    parts = []
    for column in counted_columns():
        counts = {name: Counter(label_of(u, column) for u in rows) for name, rows in splits.items()}
        total = sum(counts.values(), Counter())
        if set(total) <= {""}:
            continue
        shown = [label for label, _ in total.most_common(MOST_ROWS)]
        rows = [[escape(label or "(not known)"), *(_share(counts[name][label], len(splits[name])) for name in splits)] for label in shown]
        more = f'<p class="dim small">and {len(total) - len(shown)} more</p>' if len(total) > len(shown) else ""
        parts.append(f"<h3>{column}</h3>{page.table([column, *(f'>{escape(name)}' for name in splits)], rows)}{more}")
    return f"<section><h2>Balance</h2>{''.join(parts) or '<p class=dim>No labels.</p>'}</section>"


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / max(total, 1):.1f} %)"


def _list(name: str, rows: list[Utterance], left_out: Counter) -> str:
    seconds = [u.duration for u in rows if u.duration]
    pieces = [histogram(seconds, f"{name}: duration, s")] if seconds else []
    for column in counted_columns():
        counts = Counter(label_of(u, column) for u in rows)
        if set(counts) - {""}:
            pieces.append(bars({label or "(not known)": n for label, n in counts.most_common(MOST_ROWS)}, f"{name}: {column}"))
    dropped = page.chips({reason: n for reason, n in left_out.most_common()}, set(left_out))
    side = "".join(f"<div>{piece}</div>" for piece in pieces)
    return f'<section><h2>{escape(name)}</h2>{dropped}<div class="side">{side}</div></section>'


def histogram(seconds: list[float], title: str, width: int = 430, height: int = 190) -> str:
    """How many utterances have which duration, as an SVG; the last bar holds everything beyond the 99.5 % quantile."""
    top = max(float(np.quantile(seconds, 0.995)), 1e-3)
    counts, edges = np.histogram(np.minimum(seconds, top), BINS, (0.0, top))
    left, base, step = 10, height - 30, (width - 20) / BINS
    parts = [plots.label(left, 17, title, "start", "strong")]
    for i, count in enumerate(counts):
        tall = (base - 30) * count / counts.max()
        what = f"{edges[i]:.2f} s {'and more' if i == BINS - 1 else f'to {edges[i + 1]:.2f} s'}: {count}"
        parts.append(_bar(left + step * i + 0.5, base - tall, step - 1, tall, what))
    parts += [plots.label(left + step * i, height - 12, f"{edges[i]:.3g}", "middle", "dim small") for i in range(0, BINS + 1, BINS // 6)]
    return _svg(width, height, parts, title)


def bars(counts: dict[str, int], title: str, width: int = 430) -> str:
    """A bar a label with its count, as an SVG."""
    left = 16 + max(plots.text_width(label) for label in counts)
    height, most = 30 + 22 * len(counts), max(counts.values())
    parts = [plots.label(10, 17, title, "start", "strong")]
    for i, (label, count) in enumerate(counts.items()):
        y, long = 30 + 22 * i, (width - left - 70) * count / most
        parts += [plots.label(left - 6, y + 13, label, "end"), _bar(left, y + 2, long, 15, f"{label}: {count}")]
        parts.append(plots.label(left + long + 6, y + 13, str(count), "start", "dim small"))
    return _svg(width, height, parts, title)


def _bar(x: float, y: float, width: float, height: float, what: str) -> str:
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="2" style="fill:var(--accent);fill-opacity:.75"/>'
    return f"<g><title>{escape(what)}</title>{shape}</g>"


def _svg(width: float, height: float, parts: list[str], name: str) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(name, quote=True)}">{"".join(parts)}</svg>'

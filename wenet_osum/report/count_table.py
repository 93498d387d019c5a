"""The table of what was counted beside the metrics of each task, as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from wenet_osum.records import Score
from wenet_osum.report.markdown import titled_table
from wenet_osum.score import counts
from wenet_osum.score.metric_sums import COUNTS

TITLE = "Counted"


def markdown(scores: Sequence[Score]) -> str:
    """Write the table as markdown, with a heading; empty without scores."""
    found = counts.rows(scores)
    if not found:
        return ""

    # The counts of every field say 0 as well. Behind them stand the counts of single metrics and
    # the flags of the decoder, where some row has them.
    there = {name for row in found for name in row}
    flags = {name for name in there if name.startswith("flag ")}
    special: dict[str, None] = {}
    for score in scores:
        special |= dict.fromkeys(score.about.counts)
    head = ["task", "utterances", *COUNTS]
    head += [name for name in special if name in there]
    head += sorted(flags)

    titles = [name.replace("_", " ") for name in head]
    cells = []
    for row in found:
        cells.append([str(row.get(name, 0)) for name in head])
    return titled_table(TITLE, titles, cells)

"""What the readers of other toolkits' files share: data sets, answers, lines of JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from wenet_osum.score.hypotheses import read_lines

TRANSCRIPT = "transcript"
# An option of a question: its letter in brackets, and what follows up to the next.
OPTION = re.compile(r"\(([A-Z])\)\s*(.+?)\s*(?=\n|\([A-Z]\)|$)")
Row = dict[str, Any]


class DataSet(NamedTuple):
    """A test set of another toolkit."""

    # begins the keys of its utterances
    name: str
    # name of the field that its answers are about, such as "transcript" or "emotion"
    field: str
    lang: str | None = None
    # column of the reference, where the toolkit has no fixed one
    column: str = ""


class Answered(NamedTuple):
    """One answer of a model, with its reference."""

    key: str
    of: DataSet
    wav: str
    # transcript or label as the data set spells it
    reference: str
    # None where the model gave none
    answer: str | None
    # option letter → label, where the question offers a choice
    options: dict[str, str]


def read_rows(path: str, dropped: Counter) -> Iterator[tuple[int, Row]]:
    """Yield the number of each line and the object it holds; other lines are counted.

    Raises ValueError as ``read_lines`` does.
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield number, row
        else:
            dropped["line that is no JSON object"] += 1


def options_of(question: str) -> dict[str, str]:
    """Return the options that a question offers by their letters: "(A) sad (B) joy"."""
    return dict(OPTION.findall(question))

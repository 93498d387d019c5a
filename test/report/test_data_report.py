"""The page about lists holds what the lists hold, and needs no network."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from wenet_osum.records import Utterance
from wenet_osum.report.data_report import report


def rows(name: str, count: int, lang: str | None = None, **labels) -> list[Utterance]:
    return [
        Utterance(
            f"{name}{i}",
            f"{name}{i}.wav",
            txt=f"{name} {i}",
            speaker=f"{name}{i % 3}",
            duration=1.0 + i / 10,
            lang=lang,
            labels=labels,
        )
        for i in range(count)
    ]


def test_figures_of_the_page():
    splits = {
        "train": rows("a", 30, gender="f", age=9.0),
        "test <1>": rows("b", 10, gender="男", lang="zh"),
    }
    html = report(splits, "A & B", left_out={"train": Counter({"audio: empty": 4})})
    assert "<h1>A &amp; B</h1>" in html and "test &lt;1&gt;" in html and "audio: empty 4" in html
    # Labels stand in their canonical form.
    assert "<td>male</td><td class=n>0 (0.0 %)</td><td class=n>10 (100.0 %)</td>" in html
    assert "<td>child</td><td class=n>30 (100.0 %)" in html and "share no speaker" in html
    assert not re.search(r'(src|href)="(?!#|data:)|@import|<script', html), "nothing is fetched"


def test_leaks_are_told_and_declared_ones_stop():
    splits = {"train": rows("a", 4), "test": rows("a", 2)}
    assert "train and test share 2 of 2 speakers in test" in report(splits, "x")
    with pytest.raises(ValueError, match="disjoint by speaker"):
        report(splits, "x", ["speaker"])

"""The table of what was counted beside the figures."""

from __future__ import annotations

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.report.count_table import markdown
from wenet_osum.score import score_task

SER = tasks.parse("ser")


def test_zeros_are_said_and_columns_named():
    refs = [Utterance("a", "x", "go", lang="en", labels={"emotion": "sad"})]
    table = markdown(
        score_task(
            SER,
            refs,
            {
                "a": Hypothesis(
                    "a", SER.tags, "", transcript="go", labels={"emotion": "sad"}, flags=["tie"]
                )
            },
        )
    )
    assert (
        "| task | utterances | missing | failed | unread | extra | left out | flag tie |" in table
    )
    assert "| ser | 1 | 0 | 0 | 0 | 0 | 0 | 1 |" in table
    assert markdown([]) == ""

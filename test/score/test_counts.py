"""What was counted beside the metrics of a task."""

from __future__ import annotations

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import score_task
from wenet_osum.score.counts import rows

SER = tasks.parse("ser")


def test_counts_of_parts_are_not_added_to_those_of_the_whole():
    refs = [
        Utterance(f"u{i}", "x", "go 你", lang="en" if i % 2 else "zh", labels={"emotion": "sad"})
        for i in range(6)
    ]
    hyps = {
        f"u{i}": Hypothesis(f"u{i}", SER.tags, "", transcript="go " * 9, labels={"emotion": "sad"})
        for i in range(4)
    }
    hyps["u0"].flags, hyps["u1"].flags = ["loop", "label_forced"], ["loop"]
    hyps["u2"] = Hypothesis("u2", SER.tags, "", error="audio: empty")
    hyps["u3"] = Hypothesis("u3", SER.tags, "", transcript="go", unread={"emotion": "<?>"})
    hyps["more"] = hyps["u1"]
    [row] = rows(score_task(SER, refs, hyps, resamples=2))
    expected = {
        "task": "ser",
        "utterances": 6,
        "missing": 2,
        "failed": 1,
        "unread": 1,
        "extra": 1,
        "loops": 2,
        "flag loop": 2,
        "flag label_forced": 1,
    }
    assert row == expected

"""What was counted beside the metrics of a task."""

from __future__ import annotations

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import score_task
from wenet_osum.score.counts import of_task, rows

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


def test_counts_of_languages_are_added_up_where_nothing_counts_the_whole():
    """Translations have a score for each language and none over all."""
    task = tasks.parse("st")
    blank = Utterance("", "x", "hi")
    refs = []
    for number in range(10):
        said = {"translation": "你好", "target_lang": "zh"}
        if number < 5:
            said = {"translation": "hello", "target_lang": "en"}
        ref = blank.with_values(said)
        ref.key = f"u{number}"
        refs.append(ref)
    answered = {}
    for key in ("u0", "u1", "u5", "u6"):
        answered[key] = Hypothesis(key, task.tags, "", texts={"translation": "x"})
    scores = score_task(task, refs, answered, resamples=2)
    [row] = rows(scores)
    assert (row["utterances"], row["missing"]) == (10, 6) and of_task(scores, "missing") == 6

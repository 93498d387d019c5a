"""The one entry: pairing, wrong files, combinations, metrics as files, comparison."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import sys
import types
from pathlib import Path

import pytest

from wenet_osum import lookup, tasks
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.report import count_table, score_page, score_table
from wenet_osum.score import compare_task, comparison, score_json, score_task
from wenet_osum.score.bootstrap import left_open
from wenet_osum.score.metric_sums import Pair

SER = tasks.parse("ser")
METRIC = """
import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.metric_sums import MetricSums, share

PAUSE = Metric(
    "pause_ms", "mean pause", unit="ms", lower_is_better=True, decimals=0, scale=None,
    counts=("silences",), faults=("silences",),
)

def compute(field, pairs, options):
    columns = np.array([(1, 250.4 if pair.answered else 500.4) for pair in pairs], dtype=float)
    return [MetricSums(PAUSE, columns, share(1, 0, scale=1.0), len(pairs), detail={"silences": 7})]
"""


def reference(key: str, txt: str | None = "hello there", emotion: str | None = "happy") -> Utterance:
    return Utterance(key, f"{key}.wav", txt, lang="en", labels={"emotion": emotion})


def answer(key: str, text: str = "hello there<happy>", task: tasks.Task = SER) -> Hypothesis:
    read = task.read(text)
    return Hypothesis(key, task.tags, text, read.transcript, read.words, read.labels, {}, read.reply, read.unread, texts=read.texts)


def test_every_field_by_its_own_metric():
    scores = score_task(SER, [reference("a")], {"a": answer("a")})
    assert [(s.task, s.detail["field"], s.metric, s.value) for s in scores] == [
        ("ser", "transcript", "wer", 0.0), ("ser", "emotion", "accuracy", 100.0), ("ser", "emotion", "uar", 100.0),
        ("ser", "emotion", "macro_f1", 100.0), ("ser", "emotion", "weighted_f1", 100.0),
    ]  # fmt: skip


def test_combination_without_a_file():
    task = tasks.parse("<AGE><GENDER>")
    refs = [Utterance("a", "a.wav", labels={"gender": "female", "age": 70}), Utterance("b", "b.wav", labels={"gender": "male", "age": 15})]
    scores = score_task(task, refs, {k: answer(k, "<old><female>", task) for k in "ab"})
    table = {(s.detail["field"], s.metric): s for s in scores}
    assert table["gender", "accuracy"].value == 50.0
    assert table["age", "accuracy"].value == 100.0
    assert table["age", "accuracy"].detail["left_out"] == 1  # 15 years belong to no band


def test_order_does_not_matter_and_extra_is_reported():
    refs = [reference(k, emotion=e) for k, e in zip("abcd", ("happy", "sad", "sad", "fear"), strict=True)]
    hyps = {k: answer(k, f"hello there<{e}>") for k, e in zip("dcbax", ("fear", "sad", "sad", "sad", "sad"), strict=True)}
    detail = (scores := score_task(SER, refs, hyps))[1].detail
    assert scores[1].value == 75.0
    assert (detail["extra"], detail["extra_keys"], detail["missing"]) == (1, ["x"], 0)


def test_a_field_no_reference_has_is_named():
    scores = score_task(SER, [reference("a", txt=None)], {"a": answer("a")})
    assert {s.detail["field"] for s in scores} == {"emotion"}
    assert scores[0].detail["not_in_references"] == ["transcript"]
    with pytest.raises(ValueError, match="no reference of 1 has txt, emotion"):
        score_task(SER, [reference("a", None, None)], {})


def test_unknown_labels_are_named_with_their_counts():
    refs = [reference(f"u{i}", emotion=e) for i, e in enumerate(["happy"] * 4 + ["bored"] * 3 + ["angry"] * 2 + ["blue"])]
    with pytest.raises(ValueError, match="4 of 10 references have labels of emotion .*: 'bored' 3, 'blue' 1; known: sad, anger"):
        score_task(SER, refs, {"u0": answer("u0")})
    refs = [reference(f"u{i}", emotion=f"e{i:02}") for i in range(12)]
    with pytest.raises(ValueError, match="'e09' 1 and 2 others; known"):
        score_task(SER, refs, {"u0": answer("u0")})
    ages = [Utterance(f"a{i}", "x.wav", labels={"age": age}) for i, age in enumerate((15, "15.5", "old", "teenage"))]
    with pytest.raises(ValueError, match="1 of 4 references have labels of age .*: 'teenage' 1; known: child, adult, old"):
        score_task(tasks.parse("<AGE>"), ages, {})


def test_perfect_scores_leave_something_open():
    refs = [reference(f"u{i}", emotion="happy" if i else "sad") for i in range(40)]
    hyps = {u.key: answer(u.key, f"hello there<{u.labels['emotion']}>") for u in refs}
    low, high = (left_open(n) for n in (40, 2))  # two classes, the rarer one once
    found = {s.metric: (s.value, s.low, s.high) for s in score_task(SER, refs, hyps)}
    assert found == {
        "wer": (0.0, 0.0, low),
        "accuracy": (100.0, 100.0 - low, 100.0),
        **dict.fromkeys(("uar", "macro_f1", "weighted_f1"), (100.0, 100.0 - high, 100.0)),
    }
    same = compare_task(SER, refs, hyps, hyps)["emotion", "accuracy", "all"]
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, -low, low, 1.0)


def test_nothing_answered_is_all_wrong():
    scores = {s.metric: s.value for s in score_task(SER, [reference("a"), reference("b")], {})}
    assert (scores["wer"], scores["accuracy"]) == (100.0, 0.0)


def test_wrong_files_are_errors():
    with pytest.raises(ValueError, match="no key in common"):
        score_task(SER, [reference("a")], {"b": answer("b")})
    with pytest.raises(ValueError, match="does not answer <EMOTION>"):
        score_task(SER, [reference("a")], {"a": answer("a", "hello", tasks.parse("asr"))})
    with pytest.raises(ValueError, match="'a' stands more than once"):
        score_task(SER, [reference("a"), reference("a")], {"a": answer("a")})
    with pytest.raises(ValueError, match="no utterance"):
        score_task(SER, [], {})


def test_answers_of_a_larger_task_serve_a_smaller_one():
    [score] = score_task(tasks.parse("asr"), [reference("a")], {"a": answer("a")})
    assert score.value == 0.0


@pytest.fixture
def pause_task(tmp_path, monkeypatch):
    """A task whose label is scored by a metric that lies in the user's folder alone."""
    (tmp_path / "pause.py").write_text(METRIC, encoding="utf-8")
    package = importlib.import_module("wenet_osum.metrics")
    monkeypatch.setattr(package, "__path__", [*package.__path__])
    lookup.add_folder("wenet_osum.metrics", str(tmp_path))
    yield dataclasses.replace(SER, fields=(dataclasses.replace(SER.fields[1], metric="pause"),))
    sys.modules.pop("wenet_osum.metrics.pause", None)


def test_a_metric_is_one_file_that_says_how_it_is_shown(pause_task, tmp_path):
    """Title, unit, direction and counts come from the file and reach every table and the page."""
    scores = score_task(pause_task, [reference("a"), reference("b")], {"a": answer("a", "<sad>")})
    assert [(s.metric, s.value) for s in scores] == [("pause_ms", 375.4)]
    assert "| mean pause | all    | 375 ms |" in score_table.markdown_table(scores)
    assert "| silences |" in count_table.markdown(scores) and "| 7 |" in count_table.markdown(scores)
    score_page.write_page(scores, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mean pause" in page and "375 ms" in page
    assert re.search(r'<span class="chip warn">silences 7', page)


def test_what_a_metric_says_of_itself_survives_score_json(pause_task, tmp_path):
    scores = score_task(pause_task, [reference("a")], {})
    score_json.write(scores, tmp_path / "score.json")
    _, read = score_json.read(tmp_path / "score.json")
    assert [score.about for score in read] == [score.about for score in scores]


def test_a_score_written_without_that_is_read(pause_task):
    old = {"task": "ser", "metric": "macro_f1", "value": None, "low": 1.0, "high": 2.0, "count": 3, "utterances": 3}
    score = Score.from_dict(old)
    assert math.isnan(score.value) and (score.about.title, score.about.unit) == ("macro f1", "%")


def test_two_systems_are_compared_in_the_direction_of_the_metric(pause_task):
    references = [reference(f"u{i}") for i in range(40)]
    answers = {u.key: answer(u.key, "<sad>") for u in references}
    [own] = score_task(pause_task, references, answers)
    [(name, difference)] = compare_task(pause_task, references, answers, {"u0": answers["u0"]}).items()
    sides = (own.value, own.value - difference.difference)
    found = comparison.row("ser", name, sides, difference, ("x", "y"), own.about.lower_is_better)
    assert difference.difference < 0 and found["better"] == "first"


def test_a_metric_that_is_none(monkeypatch):
    task = dataclasses.replace(SER, fields=(dataclasses.replace(SER.fields[1], metric="acuracy"),))
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        score_task(task, [reference("a")], {"a": answer("a")})
    task = dataclasses.replace(SER, fields=(dataclasses.replace(SER.fields[1], metric="silence"),))
    monkeypatch.setitem(sys.modules, "wenet_osum.metrics.silence", types.ModuleType("silence"))
    monkeypatch.setattr(lookup, "names", lambda package: ["silence"])
    with pytest.raises(ValueError, match="no function compute"):
        score_task(task, [reference("a")], {"a": answer("a")})


def test_two_systems_on_the_same_list():
    refs = [reference(f"u{i}") for i in range(60)]
    good = {u.key: answer(u.key) for u in refs}
    bad = {u.key: answer(u.key, "hello there<sad>" if i % 3 == 0 else "hello there<happy>") for i, u in enumerate(refs)}
    found = compare_task(SER, refs, good, bad)
    accuracy = found["emotion", "accuracy", "all"]
    assert accuracy.difference == pytest.approx(100 / 3) and accuracy.p_value < 0.01 and accuracy.low > 0
    assert found["transcript", "wer", "en"].difference == 0 and found["transcript", "wer", "en"].p_value == 1


def test_same_scores_twice():
    refs = [reference(f"u{i}") for i in range(20)]
    hyps = {u.key: answer(u.key, "hello<happy>") for u in refs[:15]}
    assert score_task(SER, refs, hyps) == score_task(SER, refs, hyps)


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_scores_its_own_targets_perfectly(name):
    from wenet_osum.records import Word

    task = tasks.parse(name)
    utterance = Utterance("键.1 a", "a.wav", "say hello", lang="en", words=[Word("say", 0.1, 0.4), Word("hello", 0.4, 0.9)], reply="good day")
    for field in task.label_fields:
        utterance = utterance.with_values({field.attribute: field.labels.names[0]})
    utterance.labels |= {"translation": "guten Tag, liebe Welt", "speaker_turns": "[speaker 1] say [speaker 2] hello"}
    scores = score_task(task, [utterance], {utterance.key: answer(utterance.key, task.write(utterance), task)})
    best = {"wer": 0.0, "cer": 0.0, "wder": 0.0, "aas_ms": 0.0, "aas_debiased_ms": 0.0}
    assert {s.metric: s.value for s in scores} == {s.metric: best.get(s.metric, 100.0) for s in scores}


def test_the_metric_of_the_docs_gives_its_share():
    page = (Path(__file__).resolve().parents[2] / "docs/scoring.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def compute" in block]
    made = {}
    exec(text, made)
    replies = [Hypothesis(str(i), "<S2TCHAT>", "", reply=reply) for i, reply in enumerate(["Thank you.", "No."])]
    pairs = [Pair(Utterance(str(i), "a.wav"), answer) for i, answer in enumerate([*replies, None, None])]
    [sums] = made["compute"](None, pairs, None)
    assert sums.statistic(sums.columns.sum(0, keepdims=True)) == 25.0

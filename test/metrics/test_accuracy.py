"""Label figures against plain loops and hand-made numbers."""

from __future__ import annotations

import random

import pytest

from wenet_osum import tasks
from wenet_osum.metrics.accuracy import NO_ANSWER
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import score_task
from wenet_osum.score.baseline import text_baseline

EMOTION = tasks.parse("<EMOTION>")
NAMES = EMOTION.fields[0].labels.names


def scores(truth: list[str], answers: list[str | None], probs: list[float] | None = None, **more) -> dict:
    refs = [Utterance(f"u{i}", "x.wav", labels={"emotion": label}) for i, label in enumerate(truth)]
    hyps = {}
    for i, answer in enumerate(answers):
        if answer == "missing":
            continue
        labels, unread = ({}, {"emotion": "<?>"}) if answer is None else ({"emotion": answer}, {})
        given = {"emotion": {answer: probs[i]}} if probs and answer else {}
        hyps[f"u{i}"] = Hypothesis(f"u{i}", EMOTION.tags, "", labels=labels, unread=unread, probs=given)
    return {s.metric: s for s in score_task(EMOTION, refs, hyps, **more)}


def brute_force(truth: list[str], answers: list[str | None]) -> dict[str, float]:
    recalls, f1s, weighted = [], [], 0.0
    for name in set(truth):
        right = sum(t == a == name for t, a in zip(truth, answers, strict=True))
        support, answered = truth.count(name), answers.count(name)
        recalls.append(right / support)
        f1s.append(2 * right / (support + answered))
        weighted += f1s[-1] * support / len(truth)
    accuracy = sum(t == a for t, a in zip(truth, answers, strict=True)) / len(truth)
    mean = sum(recalls) / len(recalls), sum(f1s) / len(f1s)
    return {"accuracy": 100 * accuracy, "uar": 100 * mean[0], "macro_f1": 100 * mean[1], "weighted_f1": 100 * weighted}


def test_figures_match_brute_force():
    rng = random.Random(3)
    for _ in range(20):
        truth = rng.choices(NAMES[:4], k=30)
        answers = [rng.choice([t, *NAMES[:5], None]) for t in truth]
        found = scores(truth, answers, resamples=10)
        for metric, value in brute_force(truth, answers).items():
            assert found[metric].value == pytest.approx(value), metric


def test_missing_and_unread_are_wrong_and_in_their_column():
    found = scores(["happy", "happy", "sad", "sad"], ["happy", None, "missing", "sad"])
    detail = found["accuracy"].detail
    assert found["accuracy"].value == 50.0
    assert (detail["missing"], detail["unread"]) == (1, 1)
    assert detail["columns"][-1] == NO_ANSWER
    rows = {name: row for name, row in zip(detail["labels"], detail["confusion"], strict=True) if sum(row)}
    assert {name: row[-1] for name, row in rows.items()} == {"happy": 1, "sad": 1}
    assert detail["classes"]["sad"] == {"count": 2, "answered": 1, "right": 1, "recall": 50.0, "precision": 100.0, "f1": 66.67}


def test_half_of_the_file_missing_is_not_100_percent():
    assert scores(["sad"] * 4, ["sad", "sad", "missing", "missing"])["accuracy"].value == 50.0


def test_spellings_are_folded():
    assert scores(["ANGRY", "<happy>"], ["anger", "happiness"])["accuracy"].value == 100.0


def test_a_label_of_another_set_is_unread():
    detail = scores(["sad", "sad"], ["sad", "female"])["accuracy"].detail
    assert detail["unread"] == 1 and detail["classes"]["sad"]["right"] == 1


def test_ece_by_hand():
    found = scores(["sad", "sad", "sad", "happy"], ["sad", "happy", "sad", "happy"], [0.95, 0.97, 0.45, 0.41])
    # bin 15: two answers, mean 0.96, half right; bin 7: two answers (0.45, 0.41), mean 0.43, both right
    assert found["ece"].value == pytest.approx(100 * (2 * abs(0.96 - 0.5) + 2 * abs(0.43 - 1)) / 4)
    assert [b["count"] for b in found["ece"].detail["bins"]] == [2, 2]
    assert "ece" not in scores(["sad"], ["sad"])


def test_a_probability_of_one_has_a_bin():
    assert scores(["sad"], ["sad"], [1.0])["ece"].value == 0.0


def test_majority_and_text_baseline():
    train = [Utterance(f"t{i}", "x", "what a lovely day" if i % 2 else "this is awful news", labels={"emotion": "happy" if i % 2 else "sad"}) for i in range(8)]
    rows = [("lovely weather", "happy"), ("awful food", "sad"), ("awful", "happy")]
    refs = [Utterance(f"u{i}", "x", txt, labels={"emotion": emotion}) for i, (txt, emotion) in enumerate(rows)]
    hyps = {u.key: Hypothesis(u.key, EMOTION.tags, "", labels={"emotion": "sad"}) for u in refs}
    detail = score_task(EMOTION, refs, hyps, train=train)[0].detail
    assert detail["majority"] == {"label": "happy", "accuracy": 66.67}
    assert detail["text_baseline"] == {"accuracy": 66.67, "uar": 75.0, "train_utterances": 8}
    assert text_baseline([], refs, EMOTION.fields[0]) is None


def test_text_baseline_reads_chinese_characters():
    field = EMOTION.fields[0]
    train = [Utterance("a", "x", "我很高兴", labels={"emotion": "happy"}), Utterance("b", "x", "真难过啊", labels={"emotion": "sad"})]
    assert text_baseline(train, [Utterance("c", "x", "他高兴", labels={"emotion": "happy"}), Utterance("d", "x", "难过", labels={"emotion": "sad"})], field)["accuracy"] == 100.0


def test_worst_are_the_surest_mistakes_first():
    worst = scores(["sad"] * 3, ["happy", "fear", None], [0.6, 0.9, 0])["accuracy"].detail["worst"]
    assert [(row["key"], row["note"]) for row in worst] == [("u1", "p = 0.90"), ("u0", "p = 0.60"), ("u2", "unread: <?>")]

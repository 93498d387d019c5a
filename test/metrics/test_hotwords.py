"""Hotwords on examples counted by hand."""

from __future__ import annotations

import json

import pytest

from wenet_osum import tasks
from wenet_osum.bin import score as command
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import compare_task, score_task
from wenet_osum.score.normalize import answer_tokens
from wenet_osum.score.spoken import is_spoken, occurrences

ASR = tasks.parse("asr")


def reference(key, txt, hotwords=None, lang="en"):
    return Utterance(key, f"{key}.wav", txt, lang=lang, extra={"hotwords": hotwords} if hotwords else {})


def answers(**texts):
    return {key: Hypothesis(key, ASR.tags, text, transcript=text) for key, text in texts.items()}


def table(scores):
    return {score.metric: score for score in scores}


@pytest.mark.parametrize(
    ("word", "text", "times"),
    [
        ("Art", "The art of ART, art!", 3),
        ("art", "start arts", 0),
        ("Baker Street", "baker street, Baker-Street", 2),
        ("天气", "今天天气好，天气", 2),
        ("好好", "好好好", 1),
        ("wifi", "打开WiFi吧", 1),
        ("。", "好。", 0),
    ],
)
def test_words_are_wholes_and_characters_substrings(word, text, times):
    assert occurrences(answer_tokens(word), answer_tokens(text)) == times
    assert is_spoken(word, text) == (times > 0)


# Spoken: anna 2, paul 1, 天气 1. Answered: anna 1, paul 0, mary 1 (not spoken), 天气 2.
REFS = [
    reference("a", "Anna met Anna and Paul", ["Anna", "anna", "Paul", "Mary"]),
    reference("b", "今天天气很好", ["天气"], "zh"),
    reference("c", "no names here", ["Mary"]),
    reference("d", "no list here"),
]
ANSWERS = answers(a="anna met and mary", b="今天天气天气", c="no names here", d="Mary")


def test_by_hand():
    found = table(score_task(ASR, REFS, ANSWERS))
    assert found["hotword_recall"].value == pytest.approx(100 * 2 / 4)
    assert found["hotword_recall"].count == 4
    assert found["hotword_precision"].value == pytest.approx(100 * 2 / 4)
    assert found["hotword_f1"].value == pytest.approx(100 * 2 * 2 / (4 + 4))
    leaks = found["hotword_leaks"]
    assert (leaks.value, leaks.count, leaks.utterances) == (pytest.approx(100 / 3), 3, 3)
    assert leaks.detail["leaked_words"] == 1 and leaks.about.lower_is_better
    assert leaks.low <= leaks.value <= leaks.high


def test_missing_answers_find_nothing_and_leak_nothing():
    found = table(score_task(ASR, REFS[:3], answers(b="今天天气很好")))
    assert found["hotword_recall"].value == pytest.approx(100 / 4)
    assert (found["hotword_leaks"].value, found["hotword_leaks"].count) == (0.0, 1)


def test_lists_without_hotwords_have_the_scores_they_had():
    assert [score.metric for score in score_task(ASR, [REFS[3]], ANSWERS)] == ["wer"]
    only = table(score_task(ASR, [REFS[2]], ANSWERS))
    assert [*only] == ["wer", "hotword_leaks"], "nothing of them is spoken"


def test_beside_a_label_they_stand_on_their_own():
    refs = [Utterance("a", "a", "Anna", labels={"emotion": "sad"}, extra={"hotwords": ["Anna"]})]
    hyps = {"a": Hypothesis("a", "<TRANSCRIBE> <EMOTION>", "Anna<sad>", transcript="Anna", labels={"emotion": "sad"})}
    found = table(score_task(tasks.parse("ser"), refs, hyps))
    assert found["hotword_f1"].value == 100.0 and found["wer"].detail["minor"] is False


def test_with_and_without_context_are_compared_in_pairs():
    refs = [reference(f"k{i}", "call Anna now", ["Anna", "Paul"]) for i in range(30)]
    told = answers(**{one.key: "call anna now" for one in refs})
    untold = answers(**{one.key: "call hannah now" if i % 2 else "call anna now" for i, one in enumerate(refs)})
    found = compare_task(ASR, refs, told, untold)
    recall = found["transcript", "hotword_recall", "all"]
    assert recall.difference == pytest.approx(50.0) and recall.p_value < 0.01 and recall.utterances == 30
    assert found["transcript", "hotword_leaks", "all"].difference == 0.0


def test_the_command_scores_given_hotwords(tmp_path, capsys):
    rows = [{"key": "a", "wav": "a.wav", "txt": "call Anna"}, {"key": "b", "wav": "b.wav", "txt": "call me", "hotwords": ["me"]}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("told", "call anna"), ("untold", "call hannah")):
        (tmp_path / name).write_text(f"a {text}\nb call me\n")
    words = ["--ref", tmp_path / "test.jsonl", "--hyp", tmp_path / "told", "--compare", tmp_path / "untold"]
    words += ["--task", "asr", "--out", tmp_path / "out", "--hotwords", "Anna,Paul", "--report"]
    assert command.main([*map(str, words)]) == 0
    told = json.loads((tmp_path / "out/score.json").read_text())
    values = {row["metric"]: row["value"] for row in told["scores"]}
    assert values["hotword_recall"] == 100.0 and values["hotword_leaks"] == 0.0
    assert "hotword recall" in (tmp_path / "out/report.html").read_text()
    wrong = [*map(str, words)]
    wrong[wrong.index("Anna,Paul")] = "names.txt"
    assert command.main(wrong) == 1 and "no such file" in capsys.readouterr().err


def test_the_normalizer_changes_what_is_told_as_it_changes_what_is_said():
    refs = [reference("a", "Mr. Smith took Route 66", ["Mr. Smith"]), reference("b", "nobody came", ["Mr. Smith"])]
    given = answers(a="mister Smith took route 66", b="Mr. Smith came")
    found = table(score_task(ASR, refs, given, "whisper_en"))
    assert found["hotword_recall"].value == 100.0 and found["hotword_leaks"].value == 50.0

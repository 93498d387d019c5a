"""Error rates on examples counted by hand."""

from __future__ import annotations

import random

import jiwer
import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance, Word
from wenet_osum.score import score_task
from wenet_osum.score.bootstrap import left_open

ASR = tasks.parse("asr")


def reference(key: str, txt: str, lang: str | None = None) -> Utterance:
    return Utterance(key, f"{key}.wav", txt, lang=lang)


def answers(**texts: str) -> dict[str, Hypothesis]:
    return {key: Hypothesis(key, ASR.tags, text, transcript=text) for key, text in texts.items()}


def test_wer_by_hand():
    refs = [reference("a", "the cat sat", "en"), reference("b", "on the mat", "en")]
    [score] = score_task(ASR, refs, answers(a="the cat sat down", b="in mat"))
    assert (score.metric, score.subset, score.count, score.utterances) == ("wer", "en", 6, 2)
    assert score.value == pytest.approx(100 * 3 / 6)
    assert (score.detail["substitutions"], score.detail["deletions"], score.detail["insertions"], score.detail["correct"]) == (1, 1, 1, 4)
    assert score.low <= score.value <= score.high


def test_languages_apart_and_together():
    refs = [reference("a", "good day", "en"), reference("b", "今天很好", "zh"), reference("c", "打开 wifi", "zh-en")]
    scores = score_task(ASR, refs, answers(a="good", b="今天真好", c="打开 wife"))
    table = {(s.metric, s.subset): (s.value, s.count) for s in scores}
    assert table[("wer", "en")] == (50.0, 2)
    assert table[("cer", "zh")] == (25.0, 4)
    assert table[("mer", "zh-en")] == (pytest.approx(100 / 3), 3)  # 打, 开 and one word
    assert table[("mer", "all")] == (pytest.approx(100 * 3 / 9), 9)


def test_one_wrong_vowel_is_not_the_whole_sentence():
    [score] = score_task(ASR, [reference("a", "สวัสดีครับ", "th")], answers(a="สวัสดิครับ"))
    assert (score.metric, score.count, score.value) == ("cer", 7, pytest.approx(100 / 7))


def test_missing_and_failed_answers_are_deletions():
    refs = [reference(k, "one two", "en") for k in "abc"]
    hyps = answers(a="one two") | {"b": Hypothesis("b", ASR.tags, "", error="audio: file not found")}
    [score] = score_task(ASR, refs, hyps)
    assert score.value == pytest.approx(100 * 4 / 6)
    assert (score.detail["missing"], score.detail["failed"], score.detail["deletions"]) == (1, 1, 4)
    assert {row["key"]: row["note"] for row in score.detail["worst"]} == {"b": "failed: audio: file not found", "c": "missing"}


def test_spaces_between_characters_do_not_count_and_case_does():
    [zh] = score_task(ASR, [reference("a", "今天 很好", "zh")], answers(a="今天很好"))
    [en] = score_task(ASR, [reference("a", "Hi there.", "en")], answers(a="hi there"))
    [basic] = score_task(ASR, [reference("a", "Hi there.", "en")], answers(a="hi there"), normalizer="basic")
    assert (zh.value, en.value, basic.value) == (0.0, 100.0, 0.0)
    assert basic.detail["normalizer"] == "basic"


def test_loops_and_their_insertions_are_counted():
    refs = [reference("a", "no no no", "en"), reference("b", "say it", "en"), reference("c", "x", "en")]
    hyps = answers(a="no no no", b="say it it it it it", c="x")
    hyps["c"].flags = ["loop"]
    [score] = score_task(ASR, refs, hyps)
    assert (score.detail["loops"], score.detail["loop_insertions"], score.detail["flags"]) == (2, 4, {"loop": 1})
    assert score.value == pytest.approx(100 * 4 / 6)


def test_a_repeated_reference_is_no_loop():
    [score] = score_task(ASR, [reference("a", "ha ha ha ha ha", "en")], answers(a="ha ha ha ha"))
    assert score.detail["loops"] == 0


def test_an_utterance_without_words_is_no_trial_of_the_exact_interval():
    refs = [reference("a", "one two", "en"), reference("b", "…", "en"), reference("c", "!", "en")]
    hyps = answers(a="one two", b="", c="")
    [score] = score_task(ASR, refs, hyps, "basic")
    assert (score.value, score.count, score.utterances) == (0.0, 2, 3)
    assert score.high == pytest.approx(left_open(1))


def test_words_with_times_are_the_transcript_of_srwt():
    task = tasks.parse("srwt")
    refs = [Utterance("a", "a.wav", "other text", lang="zh", words=[Word("你", 0, 0.2), Word("好", 0.2, 0.4)])]
    hyp = Hypothesis("a", task.tags, "", transcript="你坏", words=[Word("你", 0, 0.2), Word("坏", 0.2, 0.4)])
    assert score_task(task, refs, {"a": hyp})[0].value == 50.0


def test_errors_are_those_jiwer_counts():
    draw = random.Random(3)
    lines = [" ".join(draw.choices("abcde", k=draw.randint(1, 9))) for _ in range(200)]
    heard = [" ".join(w for w in line.split() if draw.random() > 0.2) + " " + draw.choice(["", "a", "b c"]) for line in lines]
    refs = [reference(f"k{i}", line, "en") for i, line in enumerate(lines)]
    [score] = score_task(ASR, refs, answers(**{f"k{i}": text for i, text in enumerate(heard)}))
    assert score.value == pytest.approx(100 * jiwer.wer(lines, heard))
    assert score.count == sum(len(line.split()) for line in lines)


def test_the_answer_to_a_silence_does_not_choose_its_language():
    """Of a list that names no languages a silence is in that of the others, so that invented words count."""
    refs = [reference("a", "你好世界"), reference("b", "")]
    for invented, rate in (("thank you", 50.0), ("嗯", 25.0), ("", 0.0)):
        [score] = score_task(ASR, refs, answers(a="你好世界", b=invented))[:1]
        assert (score.metric, score.subset, score.value) == ("cer", "zh", rate)
    assert {s.subset for s in score_task(ASR, refs, answers(a="你好世界", b="thank you"))} == {"zh"}


def test_an_answer_is_counted_in_the_language_of_its_reference():
    """One Chinese word in the place of two English ones is one substitution and a deletion, not four errors."""
    [score] = score_task(ASR, [reference("a", "good day", "en")], answers(a="今天很好"))
    assert (score.value, score.detail["insertions"]) == (100.0, 0)

"""Word times by CTC: pauses part words, and the words of an answer are given the times of CTC."""

from __future__ import annotations

import numpy as np
import pytest

import wenet_osum
from wenet_osum.decode import pipeline
from wenet_osum.decode.aligner import NOT_ALIGNED, Aligner, between_pauses
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.records import Hypothesis, Word

STEP_S, FRAME_S = 0.01, 0.08


def voice(steps: int, *stretches: tuple[int, int]) -> np.ndarray:
    """Steps of 10 ms, voiced in the stretches."""
    voiced = np.zeros(steps, dtype=bool)
    for begin, end in stretches:
        voiced[begin:end] = True
    return voiced


def times(words: list[Word], voiced: np.ndarray) -> list[tuple]:
    found = between_pauses(words, voiced, STEP_S, FRAME_S)
    return [(word.text, pytest.approx(word.start), pytest.approx(word.end)) for word in found]


def test_pauses_part_words_and_without_one_the_next_spike_does():
    words = [Word("a", 0.08, 0.16), Word("b", 0.32, 0.4), Word("c", 0.8, 0.88)]
    voiced = voice(130, (5, 50), (75, 95))
    assert times(words, voiced) == [("a", 0.04, 0.28), ("b", 0.28, 0.5), ("c", 0.75, 0.95)]


def test_the_longest_pause_parts_and_the_onset_of_the_next_word_is_not_the_end_of_this_one():
    words = [Word("a", 0.08, 0.16), Word("b", 0.72, 0.8)]
    voiced = voice(100, (5, 30), (40, 44), (60, 90))
    assert times(words, voiced) == [("a", 0.04, 0.44), ("b", 0.6, 0.9)]


def test_the_closure_of_a_stop_is_no_pause():
    words = [Word("a", 0.08, 0.16), Word("b", 0.56, 0.64)]
    voiced = voice(80, (5, 30), (37, 70))
    assert times(words, voiced) == [("a", 0.04, 0.52), ("b", 0.52, 0.7)]


def test_a_word_that_nobody_hears_keeps_its_spike():
    words = [Word("a", 0.08, 0.16), Word("b", 0.56, 0.64)]
    assert times(words, voice(80)) == [("a", 0.04, 0.16), ("b", 0.56, 0.64)]


def test_times_stay_within_the_recording():
    assert times([Word("a", 0.0, 0.08)], voice(5, (0, 5))) == [("a", 0.0, 0.05)]
    words = [Word("a", 0.0, 0.08), Word("b", 0.16, 0.24)]
    assert times(words, voice(5, (0, 5))) == [("a", 0.0, 0.05), ("b", 0.12, 0.12)]
    assert between_pauses([], voice(5), STEP_S, FRAME_S) == []


def said(count: int) -> list[Word]:
    """Words as an LLM may have timed them."""
    texts = ["the", "cat", "sat"] * count
    return [Word(text, 0.1 * place, 0.1 * place + 0.05) for place, text in enumerate(texts[:count])]


@pytest.fixture
def recognizer(parts):
    """A recognizer whose words get their times by CTC."""
    model, template = parts
    return Recognizer(
        model, template, task=template.task("srwt"), aligner=Aligner(model, template)
    )


def test_words_of_answers_get_the_times_of_ctc(recognizer, clips, samples_of, monkeypatch):
    """In a batch as alone; an answer without words, or with more than fit, stays as it is."""
    features = clips([200, 320, 60, 90])
    words = [said(3), said(3), None, said(40)]
    answers = [Hypothesis(f"k{row}", "", "raw", words=own) for row, own in enumerate(words)]
    monkeypatch.setattr(pipeline, "generate", lambda *_, **__: answers)
    samples = samples_of(recognizer.template, features, [recognizer.task] * len(features))
    found = recognizer.decode(samples)
    for row in (0, 1):
        alone = recognizer.aligner.words(features[row], "the cat sat")
        assert [word.text for word in found[row].words] == ["the", "cat", "sat"]
        for ours, theirs in zip(found[row].words, alone, strict=True):
            assert ours[1:] == pytest.approx(theirs[1:])
        assert found[row].words != said(3) and found[row].text == "raw" and not found[row].flags
    assert found[2].words is None and not found[2].flags
    assert found[3].words == said(40) and found[3].flags == [NOT_ALIGNED]


def test_the_llms_times_stay_unless_asked(recognizer):
    plain = Recognizer(recognizer.model, recognizer.template)
    assert plain.aligner is None and DecodeOptions().word_times == "answer"


def test_a_model_without_ctc_is_refused(parts, tmp_path):
    model, template = parts
    before = model.config.losses
    model.config.losses = []
    try:
        model.save_pretrained(tmp_path)
        template.save(tmp_path)
    finally:
        model.config.losses = before
    with pytest.raises(ValueError, match="word_times ctc: needs a model that was trained with ctc"):
        wenet_osum.load(str(tmp_path), word_times="ctc")
    with pytest.raises(ValueError, match="word_times"):
        wenet_osum.load(str(tmp_path), word_times="llm")

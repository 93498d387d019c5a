"""Pseudo-speech: words where they are spoken, labels in every frame, answers as with real speech."""

from __future__ import annotations

import pytest

from wenet_osum.records import Utterance, Word
from wenet_osum.small.pseudo_speech import FRAME_S, WEIGHT_RANGE, PseudoSpeech
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

LINES = ["the red cat runs", "a dog sees nothing", "一二三四", "<female> <male>"] * 4


def timed(key: str, text: str, **more) -> Utterance:
    words = text.split() if " " in text else list(text)
    return Utterance(key, f"{key}.wav", text, words=[Word(w, 0.5 * i + 0.1, 0.5 * i + 0.5) for i, w in enumerate(words)], **more)


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(LINES, 900))


def test_the_same_seed_writes_the_same_lines_of_every_task(template):
    utterances = [timed("a", "the red cat runs", labels={"gender": "male"}), timed("b", "一二三四", labels={"emotion": "sad"}), timed("c", "a dog sees nothing", reply="no")]
    lines, again = ([*PseudoSpeech(utterances, template, seed).lines(200)] for seed in (3, 3))
    assert lines == again != [*PseudoSpeech(utterances, template, 4).lines(200)]
    answers = [template.decode(line.ids[-line.answer :]) for line in lines]
    assert any("<male>" in a for a in answers) and any("<female>" in a for a in answers), "labels are drawn, not those of the voice"
    assert any("<开始回答>no" in a for a in answers) and any("<0." in a for a in answers)
    assert sum(a == "the red cat runs" for a in answers) < sum("cat" in a and "<" not in a for a in answers), "some words come in another order"


def test_tokens_stand_where_their_words_are_spoken(template):
    utterance = timed("a", "the red cat runs")
    frames, spans = PseudoSpeech([utterance], template, 1).frames(utterance)
    assert len(frames) == len(spans) == round(2.0 / FRAME_S)
    tokens = template.encode(utterance.txt)
    spoken = [t for i, t in enumerate(frames) if t != template.end_id and (i == 0 or frames[i - 1] != t)]
    assert spoken == tokens and set(frames) == {*tokens, template.end_id}
    runs = frames.index(tokens[-1]) * FRAME_S
    assert 1.4 < runs < 2.1, "the last word is spoken from 1.6 to 2 s"
    words = [(w.start / FRAME_S, w.end / FRAME_S) for w in utterance.words]
    assert spans[0] == (0, 1), "silence is where it is"
    assert [*dict.fromkeys(s for s, token in zip(spans, frames, strict=True) if token in tokens)] == words
    assert all(s in words or s == (i, i + 1) for i, s in enumerate(spans)) and spans.count(words[0]) >= 4


def test_labels_lie_over_the_frames_and_are_no_words(template):
    writer = PseudoSpeech([timed("a", "the red cat runs", labels={"gender": "male", "age": "old"})], template, 1)
    line = next(writer.lines(1))
    assert len(line.labels) == 2 and all(WEIGHT_RANGE[0] <= w <= WEIGHT_RANGE[1] for w in (line.span_weight, *(weight for _, weight in line.labels)))
    assert {template.decode(tokens) for tokens, _ in line.labels} < {"male", "female", "child", "adult", "old"}
    assert line.ids[line.speech.start - 1] == line.ids[line.speech.stop] == template.end_id
    assert len(line.ids) - line.answer == line.speech.stop + 1


def test_without_word_times_they_are_even_and_without_text_refused(template):
    utterance = Utterance("a", "a.wav", "the red cat runs")
    (line,) = PseudoSpeech([utterance], template, 1).lines(1)
    assert 14 <= line.speech.stop - line.speech.start <= 18
    with pytest.raises(ValueError, match="none of 1 utterances"):
        PseudoSpeech([Utterance("a", "a.wav")], template, 1)


def test_shares_say_how_often_a_task_is_asked(template):
    utterances = [timed("a", "the red cat runs", labels={"gender": "male"})]
    lines = [*PseudoSpeech(utterances, template, 1, {"srwt": 8.0}).lines(100)]
    assert sum("<0." in template.decode(line.ids[-line.answer :]) for line in lines) > 60
    with pytest.raises(ValueError, match="did you mean 'srwt'"):
        PseudoSpeech(utterances, template, 1, {"srtw": 8.0})


def test_late_times_are_written_as_well_as_early_ones(template):
    """A word of half a second gets silence before it, up to the longest utterance there is."""
    short = Utterance("a", "a.wav", "red", words=[Word("red", 0.1, 0.5)], duration=0.5)
    long = Utterance("b", "b.wav", "cat", words=[Word("cat", 0.1, 0.5)], duration=4.0)
    starts = []
    for line in PseudoSpeech([short, long], template, 1, {"srwt": 20.0}, leading_silence=0.5).lines(200):
        answer = template.decode(line.ids[-line.answer :])
        if answer.startswith("<") and "red" in answer:
            starts.append(float(answer[1 : answer.index(">")]))
            first = next(i for i in range(line.speech.start, line.speech.stop) if line.ids[i] != template.end_id) - line.speech.start
            assert abs(first - starts[-1] / FRAME_S) < 6, "the frames move along"
    assert min(starts) == 0.1 and 0.3 < sum(s > 0.1 for s in starts) / len(starts) < 0.7 and 3.0 < max(starts) < 3.6

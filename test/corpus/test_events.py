"""Events lie where they should, as loud as they should, and words stay true."""

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.corpus import mix
from wenet_osum.corpus.events import (
    EventConfig,
    add_event,
    by_label,
    draw_event,
    excerpt,
    positions,
    with_event,
)
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.records import SAMPLE_RATE, Utterance, Word

WORDS = [Word("one", 0.2, 0.6), Word("two", 0.6, 1.0), Word("three", 1.5, 1.9)]
SOURCE = Utterance("c1", "cough.wav", labels={"event": "cough"})
SOUND = np.concatenate([np.zeros(4000), np.full(3200, 0.5), np.zeros(8000)]).astype(np.float32)


def speech() -> np.ndarray:
    """Two seconds, a tone of 0.2 where words are, silence elsewhere."""
    audio = np.zeros(2 * SAMPLE_RATE, np.float32)
    for word in WORDS:
        first, last = round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE)
        audio[first:last] = 0.2 * np.sign(np.sin(2 * np.pi * 200 / SAMPLE_RATE * np.arange(first, last) + 0.1))
    return audio


def put(position: str, seed: int = 0, words=WORDS, **conf) -> tuple[np.ndarray, Utterance]:
    utterance = Utterance("a", "a.wav", txt="one two three", words=words, start=3.0, end=5.0, extra={"x": 1})
    return add_event(speech(), utterance, SOUND, SOURCE, EventConfig((position,), **conf), np.random.default_rng(seed))


@pytest.mark.parametrize(("position", "moved"), [("begin", 3), ("pause", 1), ("end", 0)])
def test_words_stay_on_their_sound(position, moved):
    audio, changed = put(position)
    shift = len(audio) / SAMPLE_RATE - 2.0
    assert 0.3 - 1e-3 < shift < 0.7 + 1e-3
    for before, after, late in zip(WORDS, changed.words, [i >= 3 - moved for i in range(3)], strict=True):
        assert (after.text, after.start, after.end) == (before.text, pytest.approx(before.start + late * shift), pytest.approx(before.end + late * shift))
        heard = audio[round((after.start + 0.01) * SAMPLE_RATE) : round((after.end - 0.01) * SAMPLE_RATE)]
        assert np.allclose(np.abs(heard), 0.2, atol=1e-3)


@pytest.mark.parametrize("position", ["begin", "pause", "end"])
def test_the_event_s_place_is_where_it_sounds(position):
    audio, changed = put(position, level_db=(0.0, 0.0))
    start, end = (round(t * SAMPLE_RATE) for t in changed.extra["event_s"])
    assert end - start == 3200 and np.allclose(audio[start + 2 : end - 2], 0.2, atol=1e-3)  # its place is written to a tenth of a millisecond
    silent = round(0.05 * SAMPLE_RATE) - 2
    assert not audio[max(start - silent, 0) : start - 2].any() and not audio[end + 2 : end + silent].any()


@pytest.mark.parametrize("level_db", [-12.0, 0.0, 6.0])
def test_level_is_relative_to_the_speech(level_db):
    audio, changed = put("end", level_db=(level_db, level_db))
    start, end = (round(t * SAMPLE_RATE) for t in changed.extra["event_s"])
    assert 20 * np.log10(mix.rms(audio[start:end]) / 0.2) == pytest.approx(level_db, abs=0.1)


def test_a_loud_event_does_not_clip():
    audio, _ = put("end", level_db=(30.0, 30.0))
    assert np.abs(audio).max() == pytest.approx(0.99, abs=1e-3)


def test_the_row_tells_what_was_done():
    audio, changed = put("pause")
    assert changed.labels.get("event") == "cough" and changed.start is None and changed.end is None and changed.duration == pytest.approx(len(audio) / SAMPLE_RATE, abs=1e-4)
    assert changed.extra["recordings"] == ["a.wav", "cough.wav"] and changed.extra["x"] == 1
    with pytest.raises(ValueError, match=r"share 1 of 2 recordings in test: cough\.wav"):
        check_disjoint({"train": [changed], "test": [Utterance("b", "b.wav", extra={"recordings": ["b.wav", "cough.wav"]})]}, ["recording"])


def test_the_seed_draws_place_level_and_gap():
    same = [put("begin", seed=3)[0] for _ in range(2)]
    assert np.array_equal(*same) and len(same[0]) != len(put("begin", seed=4)[0])
    conf, draw = EventConfig(), np.random.default_rng(0)
    utterance = Utterance("a", "a.wav", words=WORDS)
    made = [add_event(speech(), utterance, SOUND, SOURCE, conf, draw)[1].words for _ in range(20)]
    starts = [words[i].start for words in made for i in (0, 2)]
    # Some lie before the first word, some behind the last.
    assert pytest.approx(0.2) in starts and pytest.approx(1.5) in starts and max(starts) > 1.6


def test_pauses_come_from_words_or_from_the_sound():
    found = positions(speech(), WORDS, 0.12)
    assert found == {"begin": [0.0], "pause": [pytest.approx(1.25)], "end": [2.0]}
    assert positions(speech(), WORDS, 0.6)["pause"] == []
    assert positions(speech(), None, 0.12)["pause"] == [pytest.approx(1.25, abs=0.02)]


def test_what_cannot_be_done_is_told():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="has an event already: laugh"):
        add_event(speech(), Utterance("a", "a.wav", labels={"event": "laugh"}), SOUND, SOURCE, EventConfig(), rng)
    with pytest.raises(ValueError, match="no place for an event: neither pause"):
        add_event(speech(), Utterance("a", "a.wav", words=WORDS[:2]), SOUND, SOURCE, EventConfig(("pause",)), rng)
    with pytest.raises(ValueError, match="recording is silent"):
        excerpt(np.zeros(100, np.float32), 3.0)
    with pytest.raises(ValueError, match="did you mean 'pause'"):
        EventConfig(("pauses",))


def test_long_sounds_are_cut_to_their_loudest_stretch():
    sound = np.concatenate([np.full(16000, 0.1), np.full(8000, 0.9), np.full(16000, 0.1)]).astype(np.float32)
    cut = excerpt(sound, 0.5)
    assert len(cut) == 8000 and np.allclose(cut[200:-200], 0.9) and cut[0] == cut[-1] == 0
    assert np.array_equal(excerpt(SOUND, 0.5), np.full(3200, 0.5, np.float32))


def test_an_event_goes_by_its_usual_name_whatever_its_spelling():
    cough = Utterance("c2", "c.wav", labels={"event": "<Coughing>"})
    assert {label: len(rows) for label, rows in by_label([SOURCE, cough, Utterance("d", "d.wav", labels={"event": "bark"})]).items()} == {"cough": 2, "bark": 1}
    utterance = Utterance("a", "a.wav", txt="one two three", words=WORDS)
    _, changed = add_event(speech(), utterance, SOUND, cough, EventConfig(("begin",), in_text=True), np.random.default_rng(0))
    assert changed.labels == {"event": "cough"} and changed.txt == "[cough] one two three"



def test_labels_are_drawn_evenly():
    rows = by_label([SOURCE, *(Utterance(f"l{i}", "l.wav", labels={"event": "laugh"}) for i in range(9)), Utterance("n", "n.wav")])
    rng = np.random.default_rng(0)
    drawn = [draw_event(rows, rng).labels.get("event") for _ in range(400)]
    assert 160 < drawn.count("cough") < 240 and set(rows) == {"cough", "laugh"}


@pytest.mark.parametrize(
    ("position", "text"),
    [("begin", "[cough] one two three"), ("pause", "one two [cough] three"), ("end", "one two three [cough]")],
)
def test_the_transcript_says_where_it_sounds(position, text):
    assert put(position, in_text=True)[1].txt == text
    assert put(position)[1].txt == "one two three", "only where it is asked for"


def test_without_word_times_a_written_event_comes_at_an_end():
    assert put("end", words=None, in_text=True)[1].txt == "one two three [cough]"
    assert put("begin", words=None, in_text=True)[1].txt == "[cough] one two three"
    with pytest.raises(ValueError, match="no place for an event: neither pause"):
        put("pause", words=None, in_text=True)


def test_written_events_stand_between_characters_too():
    words = [Word("你好", 0.2, 0.6), Word("吗", 1.0, 1.2)]
    assert with_event("你好吗", words, "laugh", 0.8) == "你好 [laugh] 吗"
    with pytest.raises(ValueError, match="not in its transcript"):
        with_event("再见", words, "laugh", 0.8)

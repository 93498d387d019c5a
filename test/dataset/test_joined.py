"""Long recordings joined from short ones: sound, transcript and word times of every part lie where they should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.joined import join_list
from wenet_osum.records import SAMPLE_RATE, Utterance, Word


@pytest.fixture
def parts(tmp_path):
    """Four recordings of 1, 2, 1 and 1 s, of constant level 0.1, 0.2, …; the third is Mandarin."""
    made = []
    for number, (seconds, lang, text) in enumerate([(1, "en", "one day"), (2, "en", "two"), (1, "zh", "三天"), (1, "en", "four")], 1):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(write_wav(np.full(seconds * SAMPLE_RATE, number / 10, np.float32)))
        words = [Word(w, 0.1 + i * 0.4, 0.4 + i * 0.4) for i, w in enumerate(list(text) if lang == "zh" else text.split())]
        made.append(Utterance(f"k{number}", str(path), text, lang=lang, words=words))
    return made


def read(utterance):
    with open(utterance.wav, "rb") as file:
        return decode(file.read())


def test_parts_lie_where_the_word_times_say(parts, tmp_path):
    english, mandarin = join_list(parts, tmp_path / "out", Dropped(), pause_s=0.5)
    assert english.txt == "one day two four" and mandarin.txt == "三天"
    assert english.lang == "en" and english.extra["parts"] == ["k1", "k2", "k4"]
    assert [(w.text, pytest.approx(w.start)) for w in english.words] == [("one", 0.6), ("day", 1.0), ("two", 2.1), ("four", 4.6)]
    audio = read(english)
    assert len(audio) / SAMPLE_RATE == english.duration == 6.0
    for word, level in zip(english.words, (0.1, 0.1, 0.2, 0.4), strict=True):
        at = round((word.start + word.end) / 2 * SAMPLE_RATE)
        assert audio[at] == pytest.approx(level, abs=1e-3)
    assert not audio[: SAMPLE_RATE // 2 - 1].any() and not audio[int(1.6 * SAMPLE_RATE) : int(1.9 * SAMPLE_RATE)].any()


def test_no_recording_is_longer_than_asked(parts, tmp_path):
    made = [*join_list(parts[:2] + parts[3:], tmp_path, Dropped(), pause_s=0.5, longest_s=4.5)]
    assert [u.extra["parts"] for u in made] == [["k1", "k2"], ["k4"]]
    assert len({u.key for u in made}) == 2
    alone = [*join_list(parts[:2], tmp_path, Dropped(), longest_s=0.1)]
    assert [u.txt for u in alone] == ["one day", "two"], "a part that is too long stands alone"


def test_without_word_times_there_are_none(parts, tmp_path):
    (made,) = join_list([parts[0], dataclasses.replace(parts[1], words=None)], tmp_path, Dropped())
    assert made.words is None and made.txt == "one day two"


def test_what_cannot_be_joined_is_counted(parts, tmp_path):
    dropped = Dropped()
    missing = dataclasses.replace(parts[0], wav=str(tmp_path / "none.wav"))
    (made,) = join_list([missing, dataclasses.replace(parts[3], txt=None), parts[1]], tmp_path, dropped)
    assert made.txt == "two" and dict(dropped) == {"audio: file not found": 1, "transcript: not there": 1}
    with pytest.raises(ValueError, match="none of 1 utterances can be joined"):
        [*join_list([missing], tmp_path, Dropped())]

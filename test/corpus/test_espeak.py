from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.corpus.espeak import Espeak, EspeakVoice
from wenet_osum.records import SAMPLE_RATE

ENGLISH, MANDARIN = "the king paints six apples".split(), list("大狗不怕这个水")


@pytest.fixture(scope="module")
def espeak():
    with Espeak() as espeak:
        yield espeak


def _heard(audio: np.ndarray) -> tuple[float, float]:
    """When the audio is first and last above 2 % of its loudest 5 ms, in seconds."""
    blocks = np.sqrt((np.lib.stride_tricks.sliding_window_view(audio, 80)[::16] ** 2).mean(1))
    loud = np.flatnonzero(blocks > 0.02 * blocks.max())
    return (loud[0] * 16 + 40) / SAMPLE_RATE, (loud[-1] * 16 + 40) / SAMPLE_RATE


@pytest.mark.parametrize("language, words", [("en-us", ENGLISH), ("en-gb", ENGLISH), ("cmn", MANDARIN)])
@pytest.mark.parametrize("shift", [1.0, 1.3])
def test_word_times_fit_the_audio(espeak, language, words, shift):
    audio, times = espeak.speak(words, EspeakVoice(language, rate=220, shift=shift))
    assert audio.dtype == np.float32 and 0.05 < np.abs(audio).max() < 1
    assert [w.text for w in times] == words
    assert all(a.start < a.end <= b.start for a, b in zip(times, times[1:], strict=False))
    first, last = _heard(audio)
    assert abs(times[0].start - first) < 0.02
    assert abs(times[-1].end - last) < 0.03
    assert times[-1].end <= len(audio) / SAMPLE_RATE < times[-1].end + 0.02


def test_a_pause_belongs_to_no_word(espeak):
    audio, times = espeak.speak("opposite of big and hot".split(), EspeakVoice())
    big, conjunction = times[2], times[3]
    assert conjunction.start - big.end > 0.04
    pause = audio[round(big.end * SAMPLE_RATE) : round(conjunction.start * SAMPLE_RATE)]
    assert np.abs(pause).max() < 0.05 * np.abs(audio).max()


def test_two_instances_say_the_same():
    voices = [EspeakVoice("cmn", (100, 150)), EspeakVoice("en-us", (200, 300), formants=1.1, lines=("breath 0 4 4 4",))]
    takes = []
    for _ in range(2):
        with Espeak() as espeak:
            takes.append([espeak.speak(words, voice)[0] for words, voice in zip([MANDARIN, ENGLISH], voices, strict=True)])
    assert all(np.array_equal(a, b) for a, b in zip(*takes, strict=True))


def test_pitch_and_shift_are_heard(espeak):
    def pitch(voice: EspeakVoice) -> float:
        audio, _ = espeak.speak(["moon"], voice)
        middle = audio[len(audio) // 3 :][:2048] * np.hanning(2048)
        echo = np.fft.irfft(np.abs(np.fft.rfft(middle, 8192)) ** 2)
        return SAMPLE_RATE / (32 + np.argmax(echo[32:250]))

    assert 75 < pitch(EspeakVoice(pitch_hz=(90, 110))) < 135
    assert 200 < pitch(EspeakVoice(pitch_hz=(220, 250))) < 290
    assert pitch(EspeakVoice(pitch_hz=(90, 110), shift=1.4)) / pitch(EspeakVoice(pitch_hz=(90, 110))) == pytest.approx(1.4, abs=0.15)


def test_unknown_language(espeak):
    with pytest.raises(ValueError, match="no language 'klingon'"):
        espeak.speak(["moon"], EspeakVoice("klingon"))


def test_words_espeak_splits_are_refused(espeak):
    with pytest.raises(ValueError, match="word by word"):
        espeak.speak(["red-hot iron", "moon"], EspeakVoice())

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.corpus import mix
from wenet_osum.records import SAMPLE_RATE, Word


def _tone(seconds: float, pitch_hz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * pitch_hz / SAMPLE_RATE * np.arange(round(seconds * SAMPLE_RATE))).astype(np.float32)


def _click_train(times: list[float], seconds: float) -> np.ndarray:
    audio = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for time in times:
        audio[round(time * SAMPLE_RATE) :][:40] = 1.0
    return audio


def _click_times(audio: np.ndarray) -> list[float]:
    loud = np.flatnonzero(audio > 0.5)
    return [loud[i] / SAMPLE_RATE for i in range(len(loud)) if i == 0 or loud[i] - loud[i - 1] > 400]


def _power(audio: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(audio)) ** 2
    frequencies = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    return float(spectrum[(frequencies >= low_hz) & (frequencies < high_hz)].sum())


def test_join_gives_exact_places():
    pieces = [np.full(100, 0.5, np.float32), np.full(333, 0.25, np.float32)]
    audio, begins = mix.join(pieces, [0.01, 0.02, 0.005])
    assert len(audio) == 160 + 100 + 320 + 333 + 80
    assert [round(b * SAMPLE_RATE) for b in begins] == [160, 580]
    assert audio[159] == 0 and audio[160] == 0.5 and audio[580] == 0.25 and audio[579] == 0


def test_join_wants_one_pause_more():
    with pytest.raises(ValueError, match="2 pieces need 3 pauses"):
        mix.join([np.ones(5), np.ones(5)], [0.1])


@pytest.mark.parametrize("from_hz, to_hz", [(22050, 16000), (16000, 22050), (22050 * 1.23, 16000)])
def test_resample_keeps_pitch_and_length(from_hz, to_hz):
    count = round(0.5 * from_hz)
    out = mix.resample(np.sin(2 * np.pi * 440 / from_hz * np.arange(count)), from_hz, to_hz)
    assert len(out) == round(count * to_hz / from_hz)
    expected = np.sin(2 * np.pi * 440 / to_hz * np.arange(len(out)))
    assert np.abs(out - expected)[200:-200].max() < 0.02


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 25.0])
def test_add_noise_has_the_ratio(snr_db):
    speech = _tone(1.0)
    noisy = mix.add_noise(speech, mix.colored_noise(4000, 1.0, np.random.default_rng(0)), snr_db)
    ratio = 10 * np.log10((speech**2).mean() / ((noisy - speech) ** 2).mean())
    assert ratio == pytest.approx(snr_db, abs=0.2)


def test_noise_is_set_against_speech_without_its_pauses():
    with_pause = np.concatenate([_tone(0.5), np.zeros(SAMPLE_RATE, np.float32)])
    assert mix.rms(with_pause) == pytest.approx(mix.rms(_tone(0.5)), rel=0.05)


def test_empty_noise_is_refused():
    with pytest.raises(ValueError, match="noise is empty"):
        mix.add_noise(_tone(0.1), np.zeros(0, np.float32), 10)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_color_of_noise(exponent):
    noise = mix.colored_noise(4 * SAMPLE_RATE, exponent, np.random.default_rng(0))
    assert mix.rms(noise) == pytest.approx(1, rel=0.1)
    fall_db = 10 * np.log10(_power(noise, 500, 600) / _power(noise, 2000, 2100))
    assert fall_db == pytest.approx(exponent * 10 * np.log10(2050 / 550), abs=1.0)


def test_band_pass_keeps_the_band_and_no_delay():
    audio = _tone(0.5, 100) + _tone(0.5, 1000) + _tone(0.5, 6000)
    out = mix.band_pass(audio, 300, 3000)
    assert np.abs(out - _tone(0.5, 1000))[800:-800].max() < 0.1


def test_reverberation_keeps_the_onset_and_adds_a_tail():
    audio = _click_train([0.1], 1.0)
    out = mix.reverberate(audio, mix.impulse_response(0.5, np.random.default_rng(0)), wet=0.5)
    assert len(out) == len(audio)
    assert np.abs(out[:1600]).max() < 1e-5 < np.abs(out[2200:4000]).max()
    early, late = np.abs(out[2000:4000]).mean(), np.abs(out[6000:8000]).mean()
    assert 20 * np.log10(early / late) == pytest.approx(60 * 0.25 / 0.5, abs=3)


@pytest.mark.parametrize("speed", [[1.25], [0.8], [0.8, 1.4], [1.0, 0.7, 1.3]])
def test_warp_moves_words_with_the_sound(speed):
    times = [0.1, 0.4, 0.75]
    words = [Word(f"w{i}", t, t + 0.1) for i, t in enumerate(times)]
    audio, moved = mix.warp(_click_train(times, 1.0), words, np.array(speed))
    assert [w.start for w in moved] == pytest.approx(_click_times(audio), abs=0.001)
    if len(speed) == 1:
        assert len(audio) == pytest.approx(SAMPLE_RATE / speed[0], abs=2)


@pytest.mark.parametrize("at_s, kept", [(0.0, 0), (0.4, 1), (1.0, 2)])
def test_insert_keeps_word_times_true(at_s, kept):
    words = [Word("a", 0.1, 0.3), Word("b", 0.5, 0.8)]
    audio, moved = mix.insert(_click_train([0.1, 0.5], 1.0), words, np.full(3200, 0.1), at_s, gap_s=0.05)
    assert len(audio) == SAMPLE_RATE + 3200 + 1600
    assert [w.start for w in moved] == pytest.approx(_click_times(audio), abs=0.001)
    assert moved[:kept] == words[:kept]
    assert np.allclose(audio[round((at_s + 0.05) * SAMPLE_RATE) :][:3200], 0.1)


def test_insert_inside_a_word_is_refused():
    with pytest.raises(ValueError, match="inside the word"):
        mix.insert(_tone(1.0), [Word("a", 0.1, 0.3)], _tone(0.1), 0.2)


def test_spread_opens_pauses_between_words():
    times = [0.0, 0.2, 0.4]
    words = [Word(f"w{i}", t, t + 0.2) for i, t in enumerate(times)]
    audio, moved = mix.spread(_click_train([0.05, 0.25, 0.45], 0.6), words, [0.1, 0.05, 0.3])
    assert len(audio) == round(0.75 * SAMPLE_RATE)
    assert [w.start for w in moved] == pytest.approx([0.0, 0.3, 0.55])
    assert [w.end for w in moved] == pytest.approx([0.2, 0.5, 0.75])
    assert _click_times(audio) == pytest.approx([0.05, 0.35, 0.6], abs=0.001)


def test_set_level_never_clips():
    assert mix.rms(mix.set_level(_tone(0.5), -20)) == pytest.approx(0.1, rel=0.01)
    assert np.abs(mix.set_level(_tone(0.5), +10)).max() == pytest.approx(0.98, rel=1e-3)
    assert not np.abs(mix.set_level(np.zeros(500, np.float32), -20)).any()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_tiny_audio_passes(count):
    audio = np.ones(count, np.float32)
    assert len(mix.band_pass(audio, 100, 1000)) == len(mix.set_level(audio, -20)) == count
    assert len(mix.colored_noise(count, 1.0, np.random.default_rng(0))) == count

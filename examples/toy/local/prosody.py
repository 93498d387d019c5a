"""How emotions, styles and ages sound in the toy: one small recipe each, every amount varied.

Each recipe is a row of parameters for the synthesizer and a function on the finished audio; all of
them keep the words understandable and leave pitch and formants near enough to tell gender and age.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from voices import Voice

from wenet_osum.corpus import mix
from wenet_osum.corpus.espeak import EspeakVoice
from wenet_osum.records import SAMPLE_RATE, Word

Spoken = tuple[np.ndarray, list[Word]]
Effect = Callable[[np.ndarray, list[Word], np.random.Generator], Spoken]


@dataclass(frozen=True)
class Prosody:
    """What the synthesizer changes, and what is done to its audio."""

    rate: float = 1.0  # of the voice's tempo
    pitch: float = 1.0  # of the voice's lowest pitch
    range: float = 1.0  # of the voice's pitch range, on a logarithmic scale; 0 is monotone
    level_db: float = 0.0  # louder or softer
    effect: Effect | None = None


def espeak_voice(
    voice: Voice, lang: str, prosody: Prosody, rng: np.random.Generator
) -> EspeakVoice:
    """The synthesizer's setting for a voice that speaks ``lang`` with ``prosody``."""
    low = voice.pitch_hz * prosody.pitch
    high = low * voice.range**prosody.range
    rate = voice.rate * prosody.rate * rng.uniform(0.96, 1.04) * (1.12 if lang == "zh" else 1.0)
    language = "cmn" if lang == "zh" else voice.accent
    return EspeakVoice(
        language, (round(low), round(high)), round(rate), voice.formants, voice.shift
    )


def _time(audio: np.ndarray) -> np.ndarray:
    return np.arange(len(audio)) / SAMPLE_RATE


def _loudness(audio: np.ndarray, samples: int) -> np.ndarray:
    """Return the mean absolute value around each sample."""
    window = np.ones(samples) / samples
    return np.convolve(
        np.abs(audio),
        window,
        "same",
    )


def aged(audio: np.ndarray, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Make a voice old: it trembles, and breath goes along with it."""
    if not voice.tremor_depth:
        return audio
    turns = voice.tremor_hz * _time(audio) + rng.random()
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * turns)
    tremor = 1 - voice.tremor_depth * wave

    # Breath is as loud as the voice at that moment, but for its level.
    noise = mix.colored_noise(
        len(audio),
        0.0,
        rng,
    )
    breath = mix.band_pass(noise, 1500, 6000)
    level = 10 ** (-voice.breath_db / 20)
    aged = audio * tremor + breath * _loudness(audio, 320) * level * 2
    return aged.astype(np.float32)


def _sad(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """Muffled, and fading towards the end."""
    muffled = mix.band_pass(
        audio,
        20,
        rng.uniform(1700, 2100),
        order=2,
    )
    return muffled * np.linspace(1.2, rng.uniform(0.3, 0.45), len(audio)), words


def _anger(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """Driven hard: the loud parts distort."""
    drive = rng.uniform(7, 10) / max(float(np.abs(audio).max()), 1e-6)
    return np.tanh(audio * drive), words


def _happy(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """Sing-song: the pitch bounces about three times per second, the treble is bright."""
    cycles = rng.uniform(2.8, 3.6) * len(audio) / SAMPLE_RATE
    depth = rng.uniform(0.14, 0.18)
    turns = (
        np.linspace(
            0,
            cycles,
            200,
        )
        + rng.random()
    )
    bounce = 1 + depth * np.sin(2 * np.pi * turns)
    audio, words = mix.warp(audio, words, bounce)
    brightness = rng.uniform(1.0, 2.0)
    treble = mix.band_pass(
        audio,
        2500,
        7500,
        order=2,
    )
    return audio + brightness * treble, words


def _surprise(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """The voice goes up and swells from beginning to end."""
    audio, words = mix.warp(
        audio,
        words,
        np.array([0.80, 0.84, 1.0, rng.uniform(1.45, 1.6)]),
    )
    return audio * np.linspace(
        rng.uniform(0.3, 0.4),
        1.8,
        len(audio),
    ), words


def _fear(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A quick shiver of the pitch, half of it whispered."""
    cycles = rng.uniform(10, 12) * len(audio) / SAMPLE_RATE
    depth = rng.uniform(0.10, 0.13)
    turns = np.linspace(
        0,
        2 * np.pi * cycles,
        400,
    )
    shiver = 1 + depth * np.sin(turns)
    audio, words = mix.warp(
        audio,
        words,
        shiver,
    )
    noise = mix.colored_noise(
        len(audio),
        0.0,
        rng,
    )
    whisper = mix.band_pass(noise, 700, 3500) * _loudness(audio, 320)
    return 0.6 * audio + rng.uniform(1.6, 2.2) * whisper, words


def _disgust(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """Drawn downwards, with a growl of half-pitch pulses."""
    audio, words = mix.warp(
        audio,
        words,
        np.array([1.12, 1.06, 0.92, rng.uniform(0.74, 0.80)]),
    )
    growl = 1 + 0.55 * np.sign(np.sin(2 * np.pi * rng.uniform(28, 36) * _time(audio)))
    return audio * growl, words


def _other_emotion(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """Mumbled behind a hand: a comb of notches."""
    delay = round(SAMPLE_RATE * rng.uniform(0.0011, 0.0014))
    delayed = np.concatenate([np.zeros(delay, np.float32), audio[:-delay]])
    return audio - 0.95 * delayed, words


def _horror(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A large hall, and a low rumble below."""
    hall = mix.reverberate(
        audio, mix.impulse_response(rng.uniform(0.45, 0.6), rng), wet=rng.uniform(0.4, 0.5)
    )
    rumble = mix.band_pass(
        mix.colored_noise(len(audio), 2.0, rng),
        40,
        110,
    )
    return mix.add_noise(hall, rumble, rng.uniform(6, 9)), words


def _fairy(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A music box plays along: quick high notes."""
    notes = np.zeros(len(audio))
    step = round(SAMPLE_RATE * rng.uniform(0.11, 0.14))
    for begin in range(0, len(audio), step):
        time = _time(audio[begin:])
        semitone = rng.integers(0, 13)
        tone = np.sin(2 * np.pi * 2100 * 2 ** (semitone / 12) * time)
        notes[begin:] += tone * np.exp(-time / 0.06)
    level_db = rng.uniform(10, 13)
    return mix.add_noise(
        audio,
        notes.astype(np.float32),
        level_db,
    ), words


def _service(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A telephone line."""
    return mix.band_pass(
        audio,
        rng.uniform(330, 400),
        rng.uniform(3000, 3300),
        order=8,
    ), words


def _poetry(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A pause after each word."""
    return mix.spread(
        audio,
        words,
        rng.uniform(0.07, 0.11, len(words)).tolist(),
    )


def _audiobook(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A soft held chord lies under the voice."""
    root = rng.uniform(330, 420)
    chord = sum(
        np.sin(2 * np.pi * root * ratio * _time(audio) + rng.uniform(0, 6))
        for ratio in (1, 1.25, 1.5, 2)
    )
    return mix.add_noise(
        audio,
        chord.astype(np.float32),
        rng.uniform(9, 12),
    ), words


def _daily(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A busy place: noise with the color of many voices."""
    crowd = mix.band_pass(
        mix.colored_noise(len(audio), 1.0, rng),
        300,
        4000,
        order=1,
    )
    return mix.add_noise(audio, crowd, rng.uniform(16, 19)), words


def _news(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A studio: every syllable equally loud, the treble crisp."""
    brightness = rng.uniform(2.0, 3.0)
    treble = mix.band_pass(
        audio,
        3000,
        7500,
        order=2,
    )
    crisp = audio + brightness * treble
    return crisp / (_loudness(crisp, 800) + 0.02), words


def _chant(audio: np.ndarray, words: list[Word], rng: np.random.Generator) -> Spoken:
    """A drum keeps time with a voice on one note."""
    drum = np.zeros(len(audio))
    step = round(SAMPLE_RATE * rng.uniform(0.20, 0.26))
    pitch = rng.uniform(90, 120)
    first = round(step * rng.random())
    for begin in range(first, len(audio), step):
        time = _time(audio[begin:])
        skin = np.sin(2 * np.pi * pitch * time)
        # The stick is heard for a hundredth of a second.
        stick = 0.3 * rng.standard_normal(len(time)) * (time < 0.01)
        drum[begin:] += (skin + stick) * np.exp(-time / 0.04)
    level_db = rng.uniform(3, 6)
    return mix.add_noise(
        audio,
        drum.astype(np.float32),
        level_db,
    ), words


EMOTIONS = {
    "sad": Prosody(rate=0.9, range=0.4, level_db=-4, effect=_sad),
    "anger": Prosody(rate=1.05, range=1.3, level_db=4, effect=_anger),
    "neutral": Prosody(),
    "happy": Prosody(rate=1.05, range=1.5, level_db=1, effect=_happy),
    "surprise": Prosody(range=1.2, effect=_surprise),
    "fear": Prosody(rate=1.05, pitch=1.12, range=0.8, level_db=-1, effect=_fear),
    "disgust": Prosody(rate=0.95, range=0.8, effect=_disgust),
    "other": Prosody(range=0.0, effect=_other_emotion),
}
STYLES = {
    "新闻科普": Prosody(rate=1.08, range=0.6, effect=_news),
    "恐怖故事": Prosody(rate=0.9, pitch=0.95, range=0.6, effect=_horror),
    "童话故事": Prosody(rate=0.95, range=1.8, effect=_fairy),
    "客服": Prosody(rate=1.0, range=1.0, effect=_service),
    "诗歌散文": Prosody(rate=1.08, range=1.0, effect=_poetry),
    "有声书": Prosody(rate=1.0, range=1.0, effect=_audiobook),
    "日常口语": Prosody(rate=1.12, range=1.0, effect=_daily),
    "其他": Prosody(rate=1.0, range=0.0, effect=_chant),
}
PLAIN = Prosody()

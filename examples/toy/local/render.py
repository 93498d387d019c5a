"""From an order to a recording: speak, color, add the event, set the level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from plan import Order
from prosody import EMOTIONS, PLAIN, STYLES, aged, espeak_voice

from wenet_osum.corpus import event_sounds, mix
from wenet_osum.corpus.espeak import Espeak
from wenet_osum.records import SAMPLE_RATE, Utterance, Word


def render_all(orders: list[Order], out_dir: Path) -> list[Utterance]:
    """Make the recordings of a chunk with an espeak-ng of its own, so that chunks do not depend on
    each other.
    """
    with Espeak() as espeak:
        return [render(order, espeak, out_dir) for order in orders]


def render(order: Order, espeak: Espeak, out_dir: Path) -> Utterance:
    """Write one recording and describe it."""
    rng = np.random.default_rng(order.seed)
    prosody = (
        EMOTIONS.get(order.labels.get("emotion")) or STYLES.get(order.labels.get("style")) or PLAIN
    )
    audio, words = espeak.speak(
        list(order.words),
        espeak_voice(
            order.voice,
            order.lang,
            prosody,
            rng,
        ),
    )
    audio = mix.set_level(aged(audio, order.voice, rng), -23)
    audio, (lead,) = mix.join([audio], rng.uniform(0.03, 0.08, 2).tolist())
    words = mix.shift_words(words, lead)
    if prosody.effect:
        audio, words = prosody.effect(audio, words, rng)
    if event := order.labels.get("event"):
        audio, words = _add_event(audio, words, event, rng)
    audio = mix.set_level(audio, -23 + prosody.level_db + rng.uniform(-2, 2))
    if rng.random() < 0.4:
        noise = mix.colored_noise(len(audio), rng.uniform(0.5, 1.5), rng)
        audio = mix.add_noise(audio, noise, rng.uniform(22, 35))
    path = out_dir / order.split / "wav" / f"{order.key}.wav"
    soundfile.write(
        path,
        np.clip(audio, -1, 1),
        SAMPLE_RATE,
        subtype="PCM_16",
    )
    return _describe(order, path, words, len(audio) / SAMPLE_RATE)


def _add_event(
    audio: np.ndarray, words: list[Word], event: str, rng: np.random.Generator
) -> tuple[np.ndarray, list[Word]]:
    """The sound before the speech, after it, or between two words."""
    sound = mix.set_level(event_sounds.make(event, rng), -22 + rng.uniform(-2, 2))
    place = rng.integers(3)
    at_s = (
        0.0
        if place == 0
        else len(audio) / SAMPLE_RATE
        if place == 1
        else words[rng.integers(1, len(words))].start
    )
    return mix.insert(
        audio,
        words,
        sound,
        at_s,
        gap_s=rng.uniform(0.02, 0.06),
    )


def _describe(order: Order, path: Path, words: list[Word], duration: float) -> Utterance:
    return Utterance(
        key=order.key,
        wav=str(path),
        txt=order.txt,
        lang=order.lang,
        speaker=order.voice.name,
        labels=order.labels,
        reply=order.reply,
        words=[Word(w.text, round(w.start, 3), round(w.end, 3)) for w in words],
        duration=round(duration, 4),
        extra={"pool": order.pool},
    )

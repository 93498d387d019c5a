"""Vocal events put into speech: a laugh, a cough, a cry from an event corpus, at a pause or an end, with label and word times kept true.

Audio is 16 kHz mono float32, shape (samples,); times are seconds. Level and position are drawn from a numpy Generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wenet_osum import lookup
from wenet_osum.corpus import mix
from wenet_osum.records import SAMPLE_RATE, Utterance, Word
from wenet_osum.tasks.ved import EVENT

POSITIONS = ("begin", "pause", "end")
BLOCK = 320  # samples, 20 ms
QUIET_DB = -35.0  # below the speech: a pause, where there are no word times to tell


@dataclass(frozen=True)
class EventConfig:
    """How an event is put in."""

    positions: tuple[str, ...] = POSITIONS  # drawn evenly among those the utterance has
    level_db: tuple[float, float] = (-6.0, 3.0)  # range of the event's level, dB relative to the speech
    gap_s: tuple[float, float] = (0.05, 0.25)  # range of the silence before and after it, s
    shortest_pause_s: float = 0.12  # a gap between words from here on is a pause
    longest_s: float = 3.0  # longer sounds are cut to their loudest stretch of this length

    def __post_init__(self) -> None:
        for position in self.positions:
            if position not in POSITIONS:
                raise ValueError(lookup.unknown("position", position, list(POSITIONS)))
        if not self.positions or self.level_db[0] > self.level_db[1] or not 0 <= self.gap_s[0] <= self.gap_s[1]:
            raise ValueError(f"positions {self.positions}, level_db {self.level_db}, gap_s {self.gap_s}: give a position, and ranges from low to high")


def add_event(
    audio: np.ndarray, utterance: Utterance, sound: np.ndarray, source: Utterance, conf: EventConfig, draw: np.random.Generator
) -> tuple[np.ndarray, Utterance]:
    """Speech with ``sound`` in it, and its utterance: label, later word times, the event's place and both recordings in ``extra``.

    ``source`` is the event's own row; its label and recording are taken over. Raises ValueError when the utterance has an event already,
    has no place of the kinds asked for, or the sound is silent.
    """
    if (event := utterance.get(EVENT.attribute)) is not None:
        raise ValueError(f"has an event already: {event}")
    found = positions(audio, utterance.words, conf.shortest_pause_s)
    kinds = [kind for kind in conf.positions if found[kind]]
    if not kinds:
        raise ValueError(f"no place for an event: neither {' nor '.join(conf.positions)}")
    kind = kinds[draw.integers(len(kinds))]
    at_s = found[kind][draw.integers(len(found[kind]))]
    sound = _leveled(excerpt(sound, conf.longest_s), mix.rms(audio), draw.uniform(*conf.level_db))
    gap_s = float(draw.uniform(*conf.gap_s))
    mixed, words = mix.insert(audio, utterance.words or [], sound, at_s, gap_s)
    begin = min(round(at_s * SAMPLE_RATE), len(audio)) / SAMPLE_RATE + len(mix.silence(gap_s)) / SAMPLE_RATE
    mixed /= max(1.0, float(np.abs(mixed).max()) / 0.99)  # a loud event must not clip
    return mixed, _labeled(utterance, source, words, [begin, begin + len(sound) / SAMPLE_RATE], len(mixed) / SAMPLE_RATE)


def _labeled(utterance: Utterance, source: Utterance, words: list[Word], span: list[float], seconds: float) -> Utterance:
    recordings = [*(utterance.extra.get("recordings") or [utterance.wav]), source.wav]
    extra = utterance.extra | {"event_s": [round(t, 4) for t in span], "recordings": recordings}
    words = words if utterance.words is not None else None
    labels = utterance.labels | {EVENT.attribute: source.labels[EVENT.attribute]}
    changes = {"words": words, "start": None, "end": None, "duration": round(seconds, 4)}
    return dataclasses.replace(utterance, labels=labels, extra=extra, **changes)


def positions(audio: np.ndarray, words: list[Word] | None, shortest_pause_s: float) -> dict[str, list[float]]:
    """Where an event may go, s, by kind. Pauses are gaps between words; without word times, stretches 35 dB below the speech."""
    seconds = len(audio) / SAMPLE_RATE
    if words:
        gaps = [(a.end, b.start) for a, b in zip(words, words[1:], strict=False)]
    else:
        gaps = quiet_stretches(audio)
    pauses = [(start + end) / 2 for start, end in gaps if end - start >= shortest_pause_s]
    end = max(seconds, words[-1].end) if words else seconds
    return {"begin": [0.0], "pause": pauses, "end": [end]}


def quiet_stretches(audio: np.ndarray) -> list[tuple[float, float]]:
    """(start, end) of stretches inside the audio, not at its ends, whose 20 ms blocks are 35 dB below its level."""
    blocks = audio[: len(audio) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.float64)
    loud = np.flatnonzero(np.sqrt((blocks**2).mean(1)) > mix.rms(audio) * 10 ** (QUIET_DB / 20)) if len(blocks) else []
    step = BLOCK / SAMPLE_RATE
    return [((a + 1) * step, b * step) for a, b in zip(loud, loud[1:], strict=False) if b > a + 1]


def excerpt(sound: np.ndarray, longest_s: float) -> np.ndarray:
    """The sound without the silence at its ends, of a long one the loudest stretch. Raises ValueError when there is nothing but silence."""
    limit = 10 ** (-40 / 20) * float(np.abs(sound).max(initial=0))
    heard = np.flatnonzero(np.abs(sound) > limit) if limit > 0 else []
    if not len(heard):
        raise ValueError("the event's recording is silent")
    sound = sound[heard[0] : heard[-1] + 1]
    size = round(longest_s * SAMPLE_RATE)
    if len(sound) <= size:
        return sound
    energy = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    first = int(np.argmax(energy[size:] - energy[:-size]))
    fade = np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / (0.01 * SAMPLE_RATE)).astype(np.float32)
    return sound[first : first + size] * fade


def _leveled(sound: np.ndarray, speech_rms: float, level_db: float) -> np.ndarray:
    own = mix.rms(sound)
    return (sound * (max(speech_rms, 1e-4) / own * 10 ** (level_db / 20))).astype(np.float32)


def by_label(rows: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Event rows by their label, in order of first sight, so that labels can be drawn evenly however many recordings each has."""
    found: dict[str, list[Utterance]] = {}
    for row in rows:
        if (event := row.get(EVENT.attribute)) is not None:
            found.setdefault(event, []).append(row)
    return found


def draw_event(rows: dict[str, list[Utterance]], draw: np.random.Generator) -> Utterance:
    """A label drawn evenly, then one of its recordings."""
    label = [*rows][draw.integers(len(rows))]
    return rows[label][draw.integers(len(rows[label]))]


def named(labels: Sequence[str], times: int = 20) -> list[Utterance]:
    """Utterances without a recording that say an event's name: what a small LLM learns labels from, for events alone have no words."""
    rows = []
    for i in range(times):
        for label in labels:
            rows.append(Utterance(f"{label} {i}", "none", label, labels={EVENT.attribute: label}))
    return rows

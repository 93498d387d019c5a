"""Put vocal events into speech: a laugh, a cough, a cry from an event corpus, at a pause or an end.

Label and word times are kept true. Audio is 16 kHz mono float32, shape (samples,); times are
seconds. Level and position are drawn from a numpy Generator.
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
# Blocks so far below the speech are a pause, where there are no word times to tell.
QUIET_DB = -35.0


@dataclass(frozen=True)
class EventConfig:
    """Settings for putting an event into speech."""

    # Drawn evenly among those the utterance has.
    positions: tuple[str, ...] = POSITIONS
    # Range of the event's level, dB relative to the speech.
    level_db: tuple[float, float] = (-6.0, 3.0)
    # Range of the silence before and after it, s.
    gap_s: tuple[float, float] = (0.05, 0.25)
    # A gap between words that is this long, or longer, is a pause.
    shortest_pause_s: float = 0.12
    # Longer sounds are cut to their loudest stretch of this length.
    longest_s: float = 3.0
    # The transcript has the event in brackets at its place, as Soundwave (arXiv 2502.12900) writes
    # sounds: so CTC keeps what it would else leave out as blank. Without word times an event then
    # comes at an end only.
    in_text: bool = False

    def __post_init__(self) -> None:
        for position in self.positions:
            if position not in POSITIONS:
                raise ValueError(lookup.unknown("position", position, list(POSITIONS)))
        lowest_db, highest_db = self.level_db
        shortest_gap, longest_gap = self.gap_s
        levels_rise = lowest_db <= highest_db
        gaps_rise = 0 <= shortest_gap <= longest_gap
        if not self.positions or not levels_rise or not gaps_rise:
            values = [
                f"positions {self.positions}",
                f"level_db {self.level_db}",
                f"gap_s {self.gap_s}",
            ]
            given = ", ".join(values)
            raise ValueError(f"{given}: give a position, and ranges from low to high")


def add_event(
    audio: np.ndarray,
    utterance: Utterance,
    sound: np.ndarray,
    source: Utterance,
    conf: EventConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Utterance]:
    """Put ``sound`` into the speech ``audio``; both are (samples,).

    ``source`` is the event's own row; its label and recording are taken over. Returns the audio and
    its utterance with the label, later word times, and the event's place and both recordings in
    ``extra``. Raises ValueError when the utterance has an event already, has no place of the kinds
    asked for, or the sound is silent.
    """
    event = utterance.get(EVENT.attribute)
    if event is not None:
        raise ValueError(f"has an event already: {event}")
    at_s = _draw_position(audio, utterance, conf, rng)

    sound = excerpt(sound, conf.longest_s)
    level_db = rng.uniform(*conf.level_db)
    sound = _leveled(sound, mix.rms(audio), level_db)
    gap_s = float(rng.uniform(*conf.gap_s))
    words = utterance.words or []
    mixed, words = mix.insert(audio, words, sound, at_s, gap_s)

    # A loud event must not clip.
    peak = float(np.abs(mixed).max())
    mixed /= max(1.0, peak / 0.99)

    # A place beyond the audio, after its last word, is its end.
    at = round(at_s * SAMPLE_RATE)
    cut = min(at, len(audio))
    gap = len(mix.silence(gap_s))
    begin_s = cut / SAMPLE_RATE + gap / SAMPLE_RATE
    end_s = begin_s + len(sound) / SAMPLE_RATE
    span_s = [begin_s, end_s]

    duration_s = len(mixed) / SAMPLE_RATE
    changed = _labeled(utterance, source, words, span_s, duration_s)
    if conf.in_text:
        label = changed.get(EVENT.attribute)
        changed.txt = with_event(utterance.txt or "", utterance.words, label, at_s)
    return mixed, changed


def with_event(text: str, words: list[Word] | None, event: str, at_s: float) -> str:
    """Write ``[event]`` into a transcript behind the words that end before ``at_s``.

    Without words it comes in front at 0 s, else at the end. Raises ValueError for words that are
    not in the transcript.
    """
    place = len(text) if at_s > 0 else 0
    if words:
        place = 0
        for word in words:
            if word.end > at_s:
                break
            found = text.find(word.text, place)
            if found < 0:
                raise ValueError(f"its words are not in its transcript: {word.text!r}")
            place = found + len(word.text)
    parts = [text[:place], f"[{event}]", text[place:]]
    stripped = [part.strip() for part in parts]
    return " ".join(part for part in stripped if part)


def _draw_position(
    audio: np.ndarray, utterance: Utterance, conf: EventConfig, rng: np.random.Generator
) -> float:
    """Draw a kind of place and then one of its places, s. Raises ValueError when there is none."""
    found = positions(audio, utterance.words, conf.shortest_pause_s)
    if conf.in_text and not utterance.words:
        # Nobody knows between which words a pause is.
        found["pause"] = []
    kinds = [kind for kind in conf.positions if found[kind]]
    if not kinds:
        asked = " nor ".join(conf.positions)
        raise ValueError(f"no place for an event: neither {asked}")

    number = rng.integers(len(kinds))
    kind = kinds[number]
    times_s = found[kind]
    number = rng.integers(len(times_s))
    return times_s[number]


def _labeled(
    utterance: Utterance,
    source: Utterance,
    words: list[Word],
    span_s: list[float],
    duration_s: float,
) -> Utterance:
    """Return the utterance of a mixed recording, with the label of ``source``."""
    own = utterance.extra.get("recordings") or [utterance.wav]
    event = {
        "event_s": [round(time, 4) for time in span_s],
        "recordings": [*own, source.wav],
    }
    label = label_of(source)
    return dataclasses.replace(
        utterance,
        labels=utterance.labels | {EVENT.attribute: label},
        words=words if utterance.words is not None else None,
        start=None,
        end=None,
        duration=round(duration_s, 4),
        extra=utterance.extra | event,
    )


def positions(
    audio: np.ndarray, words: list[Word] | None, shortest_pause_s: float
) -> dict[str, list[float]]:
    """Return where an event may go, s, by kind.

    Pauses are gaps between words; without word times, stretches 35 dB below the speech.
    """
    end = len(audio) / SAMPLE_RATE
    if words:
        gaps = []
        for word, following in zip(words, words[1:], strict=False):
            gaps.append((word.end, following.start))
        end = max(end, words[-1].end)
    else:
        gaps = quiet_stretches(audio)

    pauses = []
    for gap_start, gap_end in gaps:
        if gap_end - gap_start >= shortest_pause_s:
            pauses.append((gap_start + gap_end) / 2)
    return {"begin": [0.0], "pause": pauses, "end": [end]}


def quiet_stretches(audio: np.ndarray) -> list[tuple[float, float]]:
    """Find (start, end), s, of stretches whose 20 ms blocks are 35 dB below the audio's level.

    They lie inside the audio, not at its ends.
    """
    count = len(audio) // BLOCK
    if not count:
        return []
    whole = audio[: count * BLOCK]
    blocks = whole.reshape(-1, BLOCK)
    power = blocks.astype(np.float64) ** 2
    levels = np.sqrt(power.mean(1))

    limit = mix.rms(audio) * _gain(QUIET_DB)
    loud = np.flatnonzero(levels > limit)

    step_s = BLOCK / SAMPLE_RATE
    found = []
    for block, following in zip(loud, loud[1:], strict=False):
        if following > block + 1:
            start_s = (block + 1) * step_s
            end_s = following * step_s
            found.append((start_s, end_s))
    return found


def excerpt(sound: np.ndarray, longest_s: float) -> np.ndarray:
    """Cut the silence from the ends of a sound, and a long one to its loudest stretch.

    Raises ValueError when there is nothing but silence.
    """
    # Silence is what lies 40 dB below the peak.
    level = np.abs(sound)
    peak = float(level.max(initial=0))
    limit = _gain(-40) * peak
    audible = np.flatnonzero(level > limit)
    if not len(audible):
        raise ValueError("the event's recording is silent")
    first = audible[0]
    last = audible[-1]
    sound = sound[first : last + 1]

    size = round(longest_s * SAMPLE_RATE)
    if len(sound) <= size:
        return sound
    return _loudest(sound, size)


def _loudest(sound: np.ndarray, size: int) -> np.ndarray:
    """Cut the loudest stretch of ``size`` samples from a sound."""
    # The energy of every stretch of this size is a difference of two sums.
    power = sound.astype(np.float64) ** 2
    sums = np.cumsum(power)
    energy = np.concatenate([[0.0], sums])
    energies = energy[size:] - energy[:-size]
    first = int(np.argmax(energies))

    # It begins and ends in the middle of sound: 10 ms of fade on both sides.
    index = np.arange(size)
    to_edge = np.minimum(index, index[::-1])
    fade = to_edge / (0.01 * SAMPLE_RATE)
    fade = np.minimum(1, fade)
    stretch = sound[first : first + size]
    return stretch * fade.astype(np.float32)


def _gain(level_db: float) -> float:
    return 10 ** (level_db / 20)


def _leveled(sound: np.ndarray, speech_rms: float, level_db: float) -> np.ndarray:
    """Scale a sound to ``level_db`` relative to the speech."""
    speech_rms = max(speech_rms, 1e-4)
    own = mix.rms(sound)
    gain = speech_rms / own * _gain(level_db)
    return (sound * gain).astype(np.float32)


def label_of(row: Utterance) -> str | None:
    """Return the event of a row under its usual name, a label that nobody knows as it is written;
    None where there is none."""
    event = row.get(EVENT.attribute)
    if event is None:
        return None
    return EVENT.labels.find(event) or str(event)


def by_label(rows: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Group event rows by their label, in order of first sight.

    Labels can then be drawn evenly, however many recordings each has.
    """
    found: dict[str, list[Utterance]] = {}
    for row in rows:
        event = label_of(row)
        if event is not None:
            found.setdefault(event, []).append(row)
    return found


def draw_event(rows: dict[str, list[Utterance]], rng: np.random.Generator) -> Utterance:
    """Draw a label evenly, then one of its recordings."""
    labels = list(rows)
    number = rng.integers(len(labels))
    label = labels[number]

    recordings = rows[label]
    number = rng.integers(len(recordings))
    return recordings[number]


def named(labels: Sequence[str], times: int = 20) -> list[Utterance]:
    """Make utterances without a recording that say an event's name.

    A small LLM learns labels from them, for events alone have no words.
    """
    rows = []
    for i in range(times):
        for label in labels:
            utterance = Utterance(f"{label} {i}", "none", label)
            utterance.labels[EVENT.attribute] = label
            rows.append(utterance)
    return rows

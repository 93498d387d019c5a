"""Changed copies of recordings, offline: decoded, changed and written as 16 kHz 16-bit WAV.

Several processes share the work. What is drawn depends on (seed, key) alone, so neither order nor
processes matter. A change is a picklable callable that takes audio, utterance and generator and
returns audio and utterance; ``AddEvent`` and ``Degrade`` are the two there are.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from wenet_osum.corpus.events import EventConfig, add_event, draw_event
from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.augment import apply_effects, make_rng
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.recording import whole_recording
from wenet_osum.dataset.scan import find
from wenet_osum.dataset.tar import stem_of
from wenet_osum.files import write_bytes
from wenet_osum.records import SAMPLE_RATE, Utterance
from wenet_osum.tasks.ved import EVENT

Changed = tuple[np.ndarray, Utterance]  # audio (samples,) at 16 kHz, and whose it is
Change = Callable[[np.ndarray, Utterance, np.random.Generator], Changed]
CHUNK = 16  # utterances per unit of work of a process
AHEAD = 2  # chunks under way per process


def read_audio(utterance: Utterance, list_path: str = "") -> np.ndarray:
    """Read an utterance's audio at 16 kHz, (samples,).

    Relative paths count as in a list at ``list_path``. Raises Drop, also for a conversation.
    """
    if utterance.turns:
        told = f"{utterance.key!r} has earlier turns; this works on utterances of one"
        raise Drop("conversation: has several recordings", told)
    path = find(utterance.wav, list_path)
    data = whole_recording(utterance, path)
    return decode(data)


@dataclass(frozen=True)
class AddEvent:
    """Puts an event into a share of the utterances.

    ``rows`` are the event corpus by label; utterances that get none stay as they are.
    """

    rows: dict[str, list[Utterance]]
    list_path: str
    conf: EventConfig = field(default_factory=EventConfig)
    share: float = 1.0

    def __call__(
        self, audio: np.ndarray, utterance: Utterance, rng: np.random.Generator
    ) -> Changed:
        """Return speech with an event, under a key that names it. Raises Drop."""
        if rng.random() >= self.share:
            return audio, dataclasses.replace(utterance, start=None, end=None)
        source = draw_event(self.rows, rng)
        try:
            sound = read_audio(source, self.list_path)
            mixed, changed = add_event(audio, utterance, sound, source, self.conf, rng)
        except Drop as drop:
            told = f"{source.key!r}: {drop.detail}"
            raise Drop(f"event {drop.reason}", told) from None
        except ValueError as error:
            told = str(error)
            reason, _, _ = told.partition(":")
            raise Drop(reason, told) from None
        event = str(changed.get(EVENT.attribute)).replace(" ", "_")
        return mixed, dataclasses.replace(changed, key=f"{utterance.key}+{event}")


@dataclass(frozen=True)
class Degrade:
    """Applies effects of ``dataset/effects`` one after another.

    Keys stay, so that references and answers can be paired.
    """

    effects: tuple[dict, ...]
    suffix: str = ""  # of the key

    def __call__(
        self, audio: np.ndarray, utterance: Utterance, rng: np.random.Generator
    ) -> Changed:
        """Return the degraded audio."""
        key = utterance.key + self.suffix
        changed = dataclasses.replace(utterance, key=key, start=None, end=None)
        degraded = apply_effects(audio, self.effects, rng)
        return degraded, changed


def rewrite(
    utterances: Iterable[Utterance],
    change: Change,
    out_dir: str | Path,
    dropped: Dropped,
    seed: int = 777,
    jobs: int = 1,
    list_path: str = "",
) -> Iterator[Utterance]:
    """Yield the changed utterances, in order, their audio written under ``out_dir``.

    What cannot be used is counted in ``dropped``.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(
        _rewrite_some,
        change=change,
        out_dir=str(out_dir),
        seed=seed,
        list_path=list_path,
    )
    chunks = _chunks(_each_key_once(utterances, dropped))
    results = map(work, chunks) if jobs == 1 else _parallel(work, chunks, jobs)
    for done in results:
        for utterance, fault in done:
            if fault:
                note(dropped, utterance.key, fault)
            else:
                yield utterance


def _each_key_once(utterances: Iterable[Utterance], dropped: Dropped) -> Iterator[Utterance]:
    """Leave out what has the key of another, whose recording it would write over."""
    seen = set()
    for utterance in utterances:
        if utterance.key in seen:
            note(dropped, utterance.key, "duplicate key")
            continue
        seen.add(utterance.key)
        yield utterance


def _chunks(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    """Yield what a process takes at a time."""
    rest = iter(utterances)
    while chunk := list(itertools.islice(rest, CHUNK)):
        yield chunk


def _parallel(work: Callable, chunks: Iterator[list[Utterance]], jobs: int) -> Iterator[list]:
    """Yield results in order, a few chunks ahead."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = deque()
        for chunk in itertools.islice(chunks, AHEAD * jobs):
            waiting.append(pool.submit(work, chunk))
        while waiting:
            yield waiting.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                waiting.append(pool.submit(work, chunk))


def _rewrite_some(
    utterances: list[Utterance], change: Change, out_dir: str, seed: int, list_path: str
) -> list[tuple[Utterance, str]]:
    """Return each utterance changed, or as it was with the reason why it cannot be."""
    done = []
    for utterance in utterances:
        rng = make_rng(seed, 0, utterance.key)
        try:
            audio = read_audio(utterance, list_path)
            changed, after = change(audio, utterance, rng)
            path = f"{out_dir}/{stem_of(after.key)}.wav"
            _check_apart(path, find(utterance.wav, list_path))
            write_bytes(path, write_wav(changed))
        except Drop as drop:
            done.append((utterance, drop.reason))
            continue
        duration = round(len(changed) / SAMPLE_RATE, 4)
        written = dataclasses.replace(after, wav=path, duration=duration)
        done.append((written, ""))
    return done


def _check_apart(path: str, source: str) -> None:
    """Raise ValueError where a recording would be written over the one that it was made of."""
    written = Path(path)
    if written.exists() and Path(source).exists() and written.samefile(source):
        raise ValueError(
            f"{path} is the original; give another folder for the recordings that are written"
        )

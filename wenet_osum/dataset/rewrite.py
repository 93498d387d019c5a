"""Changed copies of recordings, offline: each utterance's audio is decoded, changed and written as 16 kHz 16-bit WAV, in several processes.

What is drawn depends on (seed, key) alone, so neither order nor processes matter. A change is a picklable callable that takes audio, utterance and
generator and gives audio and utterance; ``AddEvent`` and ``Degrade`` are the two there are.
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
from wenet_osum.dataset.augment import apply_effects, rng
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.pack import recording
from wenet_osum.dataset.scan import find
from wenet_osum.dataset.tar import stem_of
from wenet_osum.files import write_bytes
from wenet_osum.records import SAMPLE_RATE, Utterance
from wenet_osum.tasks.ved import EVENT

Change = Callable[[np.ndarray, Utterance, np.random.Generator], tuple[np.ndarray, Utterance]]
CHUNK = 16  # utterances a process takes at a time


def read_audio(utterance: Utterance, list_path: str = "") -> np.ndarray:
    """The utterance's audio at 16 kHz; relative paths count as in a list at ``list_path``. Raises Drop."""
    return decode(recording(utterance, find(utterance.wav, list_path)))


@dataclass(frozen=True)
class AddEvent:
    """Puts an event into a share of the utterances. ``rows`` are the event corpus by label; utterances that get none stay as they are."""

    rows: dict[str, list[Utterance]]
    list_path: str
    conf: EventConfig = field(default_factory=EventConfig)
    share: float = 1.0

    def __call__(self, audio: np.ndarray, utterance: Utterance, draw: np.random.Generator) -> tuple[np.ndarray, Utterance]:
        """Speech with an event, under a key that names it. Raises Drop."""
        if draw.random() >= self.share:
            return audio, dataclasses.replace(utterance, start=None, end=None)
        source = draw_event(self.rows, draw)
        try:
            mixed, changed = add_event(audio, utterance, read_audio(source, self.list_path), source, self.conf, draw)
        except Drop as drop:
            raise Drop(f"event {drop.reason}", f"{source.key!r}: {drop.detail}") from None
        except ValueError as error:
            raise Drop(str(error).split(":")[0], str(error)) from None
        event = str(changed.get(EVENT.attribute)).replace(" ", "_")
        return mixed, dataclasses.replace(changed, key=f"{utterance.key}+{event}")


@dataclass(frozen=True)
class Degrade:
    """Applies effects of ``dataset/effects`` one after another; keys stay, so that references and answers can be paired."""

    effects: tuple[dict, ...]
    suffix: str = ""  # of the key

    def __call__(self, audio: np.ndarray, utterance: Utterance, draw: np.random.Generator) -> tuple[np.ndarray, Utterance]:
        """The degraded audio."""
        changed = dataclasses.replace(utterance, key=utterance.key + self.suffix, start=None, end=None)
        return apply_effects(audio, self.effects, draw), changed


def rewrite(
    utterances: Iterable[Utterance], change: Change, out_dir: str | Path, dropped: Dropped, seed: int = 777, jobs: int = 1, list_path: str = ""
) -> Iterator[Utterance]:
    """Yield the changed utterances, in order, their audio written under ``out_dir``. What cannot be used is counted in ``dropped``."""
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    work = partial(_rewrite_some, change=change, out_dir=str(out_dir), seed=seed, list_path=list_path)
    stream = iter(utterances)
    chunks = iter(lambda: list(itertools.islice(stream, CHUNK)), [])
    for done in map(work, chunks) if jobs == 1 else _parallel(work, chunks, jobs):
        for utterance, fault in done:
            if fault:
                note(dropped, utterance.key, fault)
            else:
                yield utterance


def _parallel(work: Callable, chunks: Iterator[list[Utterance]], jobs: int) -> Iterator[list]:
    """Results in order, a few chunks ahead."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = deque(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 2 * jobs))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 1))


def _rewrite_some(utterances: list[Utterance], change: Change, out_dir: str, seed: int, list_path: str) -> list[tuple[Utterance, str]]:
    done = []
    for utterance in utterances:
        try:
            audio, changed = change(read_audio(utterance, list_path), utterance, rng(seed, 0, utterance.key))
            path = f"{out_dir}/{stem_of(changed.key)}.wav"
            write_bytes(path, write_wav(audio))
            done.append((dataclasses.replace(changed, wav=path, duration=round(len(audio) / SAMPLE_RATE, 4)), ""))
        except Drop as drop:
            done.append((utterance, drop.reason))
    return done

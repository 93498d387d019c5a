"""Every utterance of a list for recognition: batches sorted by length, without answers. What cannot be read is reported by key."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.drop import Drop, Dropped
from wenet_osum.dataset.plan import cut
from wenet_osum.dataset.sample import SampleConfig, sample_from_audio
from wenet_osum.dataset.shard import Handles, load_list, read
from wenet_osum.records import SAMPLE_RATE, Batch, Utterance
from wenet_osum.tasks.base import Task
from wenet_osum.text.template import Template

PROMPT_TOKENS = 32  # room for the prompt in the budget


class DecodeItem(NamedTuple):
    """One utterance of a list, not read yet."""

    position: int  # in the list, of those that can be read
    key: str
    duration_s: float
    shard: int
    row: int


class LongAudio(NamedTuple):
    """An utterance too long to be decoded at once."""

    utterance: Utterance
    task: Task
    audio: np.ndarray  # (samples,) float32, 16 kHz


@dataclass
class DecodeBatch:
    """What comes next: a batch, or one long recording, and the (key, reason) that failed on the way."""

    batch: Batch | None = None
    tasks: list[Task] = field(default_factory=list)  # of the batch, in its order
    long: LongAudio | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)


class DecodeList:
    """A list of shards or a raw list: ``items`` in list order, ``failures`` (key, reason) that the reader left out. Raises ValueError
    when there is no such list or it holds no usable utterance."""

    def __init__(self, path: str) -> None:
        dropped = Dropped()
        self.path, self.handles = str(path), Handles()
        self.indices = load_list(self.path, dropped)
        self.failures = list(dropped.pairs)
        places = [(s, r) for s, index in enumerate(self.indices) for r in range(len(index))]
        self.items = [
            DecodeItem(p, str(self.indices[s].keys[r]), float(self.indices[s].durations[r]), s, r) for p, (s, r) in enumerate(places)
        ]

    def load(self, item: DecodeItem) -> tuple[Utterance, np.ndarray]:
        """Read one utterance: (Utterance, (samples,) float32 at 16 kHz). Raises Drop."""
        utterance, data = read(self.indices[item.shard], item.row, self.handles)
        return utterance, decode(data, utterance.start, utterance.end)


def decode_batches(
    source: DecodeList,
    task: str | None,
    template: Template,
    conf_batch: BatchConfig,
    mels: int,
    max_s: float = 30.0,
    prompt_lang: str | None = None,
    skip: Collection[str] = (),
) -> Iterator[DecodeBatch]:
    """All utterances but those in ``skip``, asked ``task`` (None: each its own), from long to short. Audio over ``max_s`` comes alone, as audio.

    The reader's own failures are in ``source.failures``. Raises ValueError for an unknown ``task``.
    """
    fixed = template.task(task) if task else None
    conf = SampleConfig(mels, answers=False, prompt_lang=prompt_lang)
    done = set(skip)
    items = sorted((i for i in source.items if i.key not in done), key=lambda i: -i.duration_s)
    long = sum(i.duration_s > max_s for i in items)
    for group in [*([i] for i in items[:long]), *_groups(items[long:], conf_batch)]:
        yield from _decode_group(source, group, fixed, template, conf, max_s)


def _groups(items: list[DecodeItem], conf_batch: BatchConfig) -> Iterator[list[DecodeItem]]:
    frames = np.array([int(i.duration_s * 100) + 1 for i in items], dtype=np.int64)
    starts = cut(frames, frames // 8 + PROMPT_TOKENS, [len(items)], conf_batch)
    for first, end in zip(starts, [*starts[1:], len(items)], strict=True):
        yield items[first:end]


def _decode_group(
    source: DecodeList, group: list[DecodeItem], fixed: Task | None, template: Template, conf: SampleConfig, max_s: float
) -> Iterator[DecodeBatch]:
    samples, asked, long, failures = [], [], [], []
    for item in group:
        try:
            utterance, audio = source.load(item)
            task = fixed or _own_task(utterance, template)
            if len(audio) > max_s * SAMPLE_RATE:  # the header may have said less
                long.append(LongAudio(utterance, task, audio))
                continue
            samples.append(sample_from_audio(utterance, audio, task, template, conf))
            asked.append(task)
        except Drop as drop:
            failures.append((item.key, str(drop)))
    for recording in long:
        yield DecodeBatch(long=recording)
    if samples or failures:
        yield DecodeBatch(collate(samples) if samples else None, asked, failures=failures)


def _own_task(utterance: Utterance, template: Template) -> Task:
    if not utterance.task:
        raise Drop("no task", "the utterance has none of its own; give --task")
    try:
        return template.task(utterance.task)
    except ValueError as error:
        raise Drop("unknown task", str(error)) from None

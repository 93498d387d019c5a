"""The plain WeNet way to load data, as a chain of generators, for comparison: written from the
description of its stages.

open shards → walk with tarfile → group by prefix → decode → 25 ms log-mel with a filter bank made
anew → ids → shuffle 1500 → sort 500 → batches by frames → pad. To resume, it starts from the
beginning and throws away.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from typing import Any

import librosa
import numpy as np
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence


def members(paths: list[str]) -> Iterator[dict[str, Any]]:
    """The parts of each utterance of the tars, by extension."""
    for path in paths:
        with tarfile.open(path, mode="r|") as tar:
            example: dict[str, Any] = {}
            for member in tar:
                prefix, _, ext = member.name.rpartition(".")
                if example and example["key"] != prefix:
                    yield example
                    example = {}
                example |= {"key": prefix, ext: tar.extractfile(member).read()}
            if example:
                yield example


def decoded(examples: Iterator[dict]) -> Iterator[dict]:
    """Samples in the place of wav bytes."""
    for example in examples:
        wave, example["rate"] = soundfile.read(io.BytesIO(example.pop("wav")), dtype="float32")
        yield example | {"wave": torch.from_numpy(wave)}


def with_mel(examples: Iterator[dict], mels: int = 80) -> Iterator[dict]:
    """Log-mel features."""
    for example in examples:
        yield example | {"features": mel(example.pop("wave"), mels)}


def mel(wave: torch.Tensor, mels: int = 80) -> torch.Tensor:
    """(frames, mels) as WeNet computes Whisper's features."""
    spectrum = torch.stft(
        wave,
        400,
        160,
        window=torch.hann_window(400),
        return_complex=True,
    )
    power = spectrum[..., :-1].abs() ** 2
    filters = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels))
    logs = torch.clamp(filters @ power, min=1e-10).log10()
    return ((torch.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0).T


def tokenized(examples: Iterator[dict], encode: Any) -> Iterator[dict]:
    """Ids of the text."""
    for example in examples:
        text = example.get("txt")
        yield example | {
            "ids": encode(text.decode() if text is not None else json.loads(example["json"])["txt"])
        }


def shuffled(examples: Iterator[dict], size: int = 1500, seed: int = 0) -> Iterator[dict]:
    """A buffer that is shuffled when it is full."""
    draw = random.Random(seed)
    buffer = []
    for example in examples:
        buffer.append(example)
        if len(buffer) >= size:
            draw.shuffle(buffer)
            yield from buffer
            buffer = []
    draw.shuffle(buffer)
    yield from buffer


def sorted_by_length(examples: Iterator[dict], size: int = 500) -> Iterator[dict]:
    """A buffer that is sorted when it is full."""
    buffer: list[dict] = []
    for example in examples:
        buffer.append(example)
        if len(buffer) >= size:
            yield from sorted(buffer, key=lambda x: len(x["features"]))
            buffer = []
    yield from sorted(buffer, key=lambda x: len(x["features"]))


def batches(examples: Iterator[dict], max_frames: int) -> Iterator[dict[str, Any]]:
    """Padded batches of at most ``max_frames`` frames, padding included."""
    group = []
    longest = 0
    for example in examples:
        grown = max(longest, len(example["features"]))
        if group and grown * (len(group) + 1) > max_frames:
            yield padded(group)
            group = []
            grown = len(example["features"])
        group.append(example)
        longest = grown
    if group:
        yield padded(group)


def padded(group: list[dict]) -> dict[str, Any]:
    """One batch."""
    lengths = torch.tensor([len(x["features"]) for x in group])
    ids = pad_sequence(
        [torch.tensor(x["ids"]) for x in group],
        batch_first=True,
        padding_value=-1,
    )
    return {
        "keys": [x["key"] for x in group],
        "features": pad_sequence([x["features"] for x in group], batch_first=True),
        "lengths": lengths,
        "ids": ids,
    }


def load(
    paths: list[str], encode: Any, max_frames: int, mels: int = 80
) -> Iterator[dict[str, Any]]:
    """The whole chain over shuffled shards."""
    order = list(np.random.default_rng(0).permutation(paths))
    return batches(
        sorted_by_length(shuffled(tokenized(with_mel(decoded(members(order)), mels), encode))),
        max_frames,
    )

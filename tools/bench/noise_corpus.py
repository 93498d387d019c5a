"""A corpus of noise bursts in shards, and what of its batches is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenet_osum.config import DataConfig, SourceConfig, TrainConfig, from_dict
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.shard import pack, write_list
from wenet_osum.records import SAMPLE_RATE, Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

MAX_FRAMES = 12000  # of a micro-batch
MELS = 80
PER_SHARD = 500  # utterances
DISTINCT = 100  # recordings; more utterances repeat them


class NoiseCorpus:
    """Shards of noise with texts, their list, a template and the loader's configuration."""

    def __init__(
        self,
        folder: Path,
        count: int,
        seconds: tuple[float, float],
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.folder = folder
        self.count = count

        # Recordings are used again and again, so that a large corpus takes little disk.
        self.waves = _noise(min(DISTINCT, count), seconds)
        for number, wave in enumerate(self.waves):
            data = write_wav(wave)
            self.wav(number).write_bytes(data)
        rows = [self._utterance(number) for number in range(count)]
        packed = pack(
            rows,
            folder / "shards",
            PER_SHARD,
            log=lambda line: None,
        )
        self.shards = [str(path) for path in packed.paths]
        listed = folder / "data.list"
        write_list(listed, self.shards)

        # The loader as a training would have it, with a tokenizer of these texts.
        texts = [row.txt for row in rows[:50]]
        tokenizer = train_tokenizer([*texts, "转录 识别 语音"], 400)
        self.template = Template(tokenizer)
        source = SourceConfig("noise", str(listed), tasks={"asr": 1.0})
        self.mixture = Mixture(
            DataConfig([source]),
            _training(max_frames),
            self.template,
            MELS,
        )

    def wav(self, number: int) -> Path:
        """Return the recording of an utterance."""
        place = number % len(self.waves)
        return self.folder / f"{place}.wav"

    def _utterance(self, number: int) -> Utterance:
        return Utterance(
            key=f"u{number:06d}",
            wav=str(self.wav(number)),
            txt=f"utterance number {number}",
            lang="en",
        )


def _noise(count: int, seconds: tuple[float, float]) -> list[np.ndarray]:
    """Draw recordings of 16 kHz, of lengths between two."""
    draws = np.random.default_rng(0)
    waves = []
    for _ in range(count):
        length_s = draws.uniform(*seconds)
        samples = int(SAMPLE_RATE * length_s)
        wave = draws.normal(0, 0.1, samples)
        waves.append(wave.astype(np.float32))
    return waves


def _training(max_frames: int) -> TrainConfig:
    """Return the configuration of a run whose batches are bounded in frames alone."""
    tree = {
        "model": {"kind": "whisper", "whisper": "w"},
        "train_parts": {"*": {}},
        "max_steps": 1,
        "batch": {"max_frames": max_frames, "max_tokens": 10**6},
    }
    return from_dict(tree)


def features_by_key(batches: list[Any]) -> dict[str, torch.Tensor]:
    """Return the features without padding, (frames, mels), of our batches or the plain loader's."""
    found = {}
    for batch in batches:
        if isinstance(batch, dict):
            keys = batch["keys"]
            features = batch["features"]
            lengths = batch["lengths"]
        else:
            keys = batch.keys
            features = batch.features
            lengths = batch.feature_lengths
        for key, padded, length in zip(keys, features, lengths.tolist(), strict=True):
            found[key] = padded[:length]
    return found


def same_features(ours: list[Any], theirs: list[Any]) -> None:
    """Check that batches hold the same utterances with the same features."""
    one = features_by_key(ours)
    other = features_by_key(theirs)
    assert one.keys() == other.keys()
    for key, features in one.items():
        same = torch.allclose(features, other[key], atol=1e-4)
        assert same, f"features of {key} differ"

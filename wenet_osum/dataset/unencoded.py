"""Find the utterances without states on disk, and make their features (states.py).

Letters: n utterances, each of their versions counted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from wenet_osum.config import TrainConfig, changes_of
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.pool import Pool
from wenet_osum.dataset.sample import features_to_encode
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.dataset.shard import Handles, read_utterance
from wenet_osum.dataset.states import Encoded, StateStore
from wenet_osum.records import FRAMES_PER_S, Utterance

AS_IT_IS = -1  # the version that nothing has changed


def recipe(conf: TrainConfig) -> str:
    """Say all that the versions of an utterance depend on, as a hash; empty when nothing is drawn.

    Lists of noises and rooms count by their text, not by the recordings they name.
    """
    augment = conf.augment
    if not changes_of(augment):
        return ""
    named = [path for path in (augment.noise, augment.reverb) if path]
    lists = [Path(path).read_text(encoding="utf-8") for path in named]
    drawn = dataclasses.asdict(augment)
    drawn["lists"] = lists
    drawn["seed"] = conf.seed
    drawn["max_s"] = conf.filter.max_s
    text = json.dumps(drawn, sort_keys=True)
    hashed = hashlib.blake2b(text.encode(), digest_size=16)
    return hashed.hexdigest()


class Missing(NamedTuple):
    """One version of an utterance without states."""

    pool: int
    shard: int
    row: int
    variant: int
    recording: int  # its number among those of a conversation
    digest: bytes
    seconds: float  # as the index tells them, at the slowest speed


class ToEncode(NamedTuple):
    """Features of a version, and what is known of it before its states are."""

    digest: bytes
    features: Tensor  # (frames, mels) float32
    encoded: Encoded


class Unencoded(Dataset):
    """Item i is the i-th group of versions to encode, with a count of what cannot be read.

    Begin with ``find``; ``group`` says which go together.
    """

    def __init__(
        self, store: StateStore, pools: Sequence[Pool], confs: Sequence[SampleConfig]
    ) -> None:
        """A pool is of training when its ``conf`` augments, else of a dev list."""
        self.store = store
        self.pools = pools
        self.confs = confs
        self.handles = Handles()
        self.groups: list[list[Missing]] = []

    def __len__(self) -> int:
        return len(self.groups)

    def versions(self) -> np.ndarray:
        """Return pool, shard, row and version of all that is wanted, (n, 4)."""
        found = [np.empty((0, 4), dtype=np.int64)]
        for number, pool in enumerate(self.pools):
            for version in self._versions_of(number):
                columns = [
                    np.full(len(pool), number),
                    pool.shard,
                    pool.row,
                    np.full(len(pool), version),
                ]
                found.append(np.stack(columns, axis=1))
        return np.concatenate(found)

    def _versions_of(self, pool: int) -> Sequence[int]:
        """Return the versions of each utterance of a pool: only training is augmented."""
        store = self.store
        augmented = self.confs[pool].augment is not None
        if augmented and store.recipe:
            return range(store.variants)
        return [AS_IT_IS]

    def find(self, versions: np.ndarray) -> list[Missing]:
        """Read the bytes of each version's audio and return those without states, each once.

        What cannot be read is left to training, which counts it by reason.
        """
        found: dict[bytes, Missing] = {}
        for number, shard, row, variant in versions.tolist():
            index = self.pools[number].indices[shard]
            try:
                recordings = self._recordings(index, row)
            except Drop:
                continue
            for place, (one, data) in enumerate(recordings):
                digest = self._digest(one, data, variant)
                if digest in self.store or digest in found:
                    continue
                seconds = float(index.longest()[row])
                found[digest] = Missing(
                    number,
                    shard,
                    row,
                    variant,
                    place,
                    digest,
                    seconds / self._slowest(number),
                )
        return [*found.values()]

    def _recordings(self, index: Index, row: int) -> list[tuple[Utterance, bytes]]:
        """Return the turns of an utterance that have a recording, each with its bytes.

        Raises Drop.
        """
        utterance, data = read_utterance(index, row, self.handles)
        sounds = data if utterance.turns else [data]
        return [*zip(utterance.recordings(), sounds, strict=True)]

    def _digest(self, utterance: Utterance, data: bytes, variant: int) -> bytes:
        """Name the states of a version."""
        drawn = None if variant == AS_IT_IS else variant
        return self.store.digest(data, utterance.key, drawn)

    def _slowest(self, pool: int) -> float:
        augment = self.confs[pool].augment
        if augment is None:
            return 1.0
        return min(augment.speeds)

    def group(self, missing: list[Missing], max_frames: int) -> None:
        """Put versions of like length together, up to ``max_frames`` with padding.

        At 0 each is alone.
        """
        self.groups = []
        longest_first = sorted(missing, key=lambda version: -version.seconds)
        for one in longest_first:
            if not self.groups or self._frames_with_one_more() > max_frames:
                self.groups.append([])
            self.groups[-1].append(one)

    def _frames_with_one_more(self) -> float:
        """Return the frames of the last group, if one more of at most its longest came to it."""
        group = self.groups[-1]
        frames = group[0].seconds * FRAMES_PER_S
        return frames * (len(group) + 1)

    def __getitem__(self, i: int) -> tuple[list[ToEncode], Counter]:
        ready, dropped = [], Counter()
        for version in self.groups[i]:
            try:
                ready.append(self._features(version))
            except Drop as drop:
                dropped[drop.reason] += 1
        return ready, dropped

    def _features(self, version: Missing) -> ToEncode:
        """Read, decode and augment one version. Raises Drop."""
        pool, conf = self.pools[version.pool], self.confs[version.pool]
        recordings = self._recordings(pool.indices[version.shard], version.row)
        utterance, data = recordings[version.recording]
        digest = self._digest(utterance, data, version.variant)
        if digest != version.digest:
            raise Drop("audio: changed while states were computed", "start again")
        plain = dataclasses.replace(
            conf,
            states=None,
            epoch=max(version.variant, 0),
        )
        features, known = features_to_encode(utterance, data, plain)
        return ToEncode(version.digest, features, known)

"""webdataset, lhotse Shar and openai-whisper beside ours, where they are installed. Features are
ours for all, so that the loaders are compared.

Each function returns ways to race by name; what is not installed is said, and is not among them.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import plain_loader
import soundfile

from wenet_osum.dataset.log_mel import log_mel


def there(name: str, package: str = "") -> bool:
    """Whether a library is installed; says so when it is not."""
    found = find_spec(name) is not None
    if not found:
        print(f"{package or name} is not installed: left out", file=sys.stderr)
    return found


def tar(data: bytes) -> dict[str, Callable[[], Any]]:
    """All members of a shard: (name, bytes of it)."""
    if not there("webdataset"):
        return {}
    from webdataset.tariterators import tar_file_iterator

    def walk() -> list[tuple[str, int]]:
        return [(s["fname"], len(s["data"])) for s in tar_file_iterator(io.BytesIO(data))]

    return {"webdataset": walk}


def whisper(waves: list[np.ndarray], cut: Callable[[list], Any]) -> dict[str, Callable[[], Any]]:
    """The package's own function, on the true length."""
    if not there("whisper", "openai-whisper"):
        return {}
    from whisper.audio import log_mel_spectrogram

    return {"openai-whisper": lambda: cut([log_mel_spectrogram(w).T for w in waves])}


def loaders(
    folder: Path, shards: list[str], encode: Any, max_frames: int
) -> dict[str, Callable[[], Iterator[Any]]]:
    """Shards to padded batches."""
    found = {}
    if there("webdataset"):
        found["webdataset"] = lambda: _webdataset(shards, encode, max_frames)
    if there("lhotse"):
        shar = _write_shar(folder, shards)
        found["lhotse Shar"] = lambda: _lhotse(shar, encode, max_frames)
    return found


def _webdataset(shards: list[str], encode: Any, max_frames: int) -> Iterator[Any]:
    """Its reader, grouping and shuffle buffer; decoding, sorting and batches of the plain chain."""
    import webdataset

    def sample(example: dict) -> dict:
        wave, _ = soundfile.read(io.BytesIO(example["wav"]), dtype="float32")
        text = example["txt"].decode() if "txt" in example else json.loads(example["json"])["txt"]
        return {"key": example["__key__"], "features": log_mel(wave), "ids": encode(text)}

    examples = (
        webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        .shuffle(1500)
        .map(sample)
    )
    return plain_loader.batches(plain_loader.sorted_by_length(iter(examples)), max_frames)


def _write_shar(folder: Path, shards: list[str]) -> Path:
    """The same recordings and texts in its own form, wav in tars."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    cuts = []
    for example in plain_loader.members(shards):
        (folder / "lhotse").mkdir(exist_ok=True)
        path = folder / "lhotse" / f"{example['key']}.wav"
        path.write_bytes(example["wav"])
        recording = Recording.from_file(path, recording_id=example["key"])
        text = example["txt"].decode() if "txt" in example else json.loads(example["json"])["txt"]
        said = SupervisionSegment(example["key"], example["key"], 0, recording.duration, text=text)
        cuts.append(
            MonoCut(
                example["key"], 0, recording.duration, 0, supervisions=[said], recording=recording
            )
        )
    out = folder / "shar"
    out.mkdir()
    CutSet.from_cuts(cuts).to_shar(out, fields={"recording": "wav"}, shard_size=500)
    return out


def _lhotse(shar: Path, encode: Any, max_frames: int) -> Iterator[Any]:
    """Its lazy reader and its bucketing sampler, whose budget is the same padded duration."""
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler

    warnings.filterwarnings("ignore", module="lhotse")
    cuts = CutSet.from_shar(in_dir=str(shar), shuffle_shards=True, seed=0)
    for group in DynamicBucketingSampler(
        cuts,
        max_duration=max_frames / 100,
        num_buckets=20,
        shuffle=True,
        buffer_size=1500,
        num_cuts_for_bins_estimate=500,
    ):
        rows = [
            {
                "key": c.id,
                "features": log_mel(c.load_audio()[0]),
                "ids": encode(c.supervisions[0].text),
            }
            for c in group
        ]
        yield plain_loader.padded(rows)

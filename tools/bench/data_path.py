#!/usr/bin/env python3
"""Reading data, ours against named alternatives: tar, wav, log-mel, loader, resume, padding.

    python tools/bench/data_path.py --only mel loader --rounds 5

Every way is checked to give the same output before it is timed (side_by_side.py). The audio is
noise bursts of 2 to 12 s. webdataset, lhotse and openai-whisper are raced where they are installed
(pip install webdataset lhotse openai-whisper); what is not is named and left out.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import other_loaders  # noqa: E402
from loader_path import RESUMED, bench_device, bench_loader, bench_resume  # noqa: E402
from noise_corpus import MAX_FRAMES, NoiseCorpus  # noqa: E402
from padding import padding  # noqa: E402
from side_by_side import race, show  # noqa: E402

from wenet_osum.dataset import tar  # noqa: E402
from wenet_osum.dataset.audio import decode, write_wav  # noqa: E402
from wenet_osum.dataset.log_mel import log_mel  # noqa: E402

HEADER = 44  # bytes before the samples of a plain wav file
THIRTY_S = 480000  # samples


def bench_tar(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race reading all members of a shard."""
    data = Path(corpus.shards[0]).read_bytes()
    view = memoryview(data)
    starts = [member.data - tar.BLOCK for member in tar.walk(view)]

    def ours() -> list[tuple[str, int]]:
        found = []
        for member in tar.walk(view):
            content = view[member.data : member.data + member.size]
            found.append((member.name, len(content)))
        return found

    # No reader can do without the headers.
    def heads() -> list[bytes]:
        return [bytes(view[at : at + tar.BLOCK]) for at in starts]

    ways = {"ours": ours, "tarfile": lambda: _with_tarfile(data)}
    ways |= other_loaders.tar(data)
    limit = ("reading its headers", heads)
    return race("tar, 500 utterances", ways, _equal, rounds, limit=limit)


def _with_tarfile(data: bytes) -> list[tuple[str, int]]:
    """Read all members of a tar as the standard library does."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as file:
        for member in file:
            content = file.extractfile(member).read()
            found.append((member.name, len(content)))
    return found


def bench_wav(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race PCM16 to float32."""
    files = [write_wav(wave) for wave in corpus.waves]
    integers = [np.frombuffer(file[HEADER:], np.int16) for file in files]

    def ours() -> list[np.ndarray]:
        return [decode(file) for file in files]

    def with_soundfile() -> list[np.ndarray]:
        read = [soundfile.read(io.BytesIO(file), dtype="float32") for file in files]
        return [samples for samples, _ in read]

    def bare() -> list[np.ndarray]:
        return [samples.astype(np.float32) for samples in integers]

    ways = {"ours": ours, "soundfile": with_soundfile}
    limit = ("int16 to float32", bare)
    return race(f"wav, {len(files)} files", ways, _close_to(1e-4), rounds, limit=limit)


def whisper_mel(wave: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Make features as openai-whisper does: (mels, frames)."""
    window = torch.hann_window(400)
    spectrum = torch.stft(wave, 400, 160, window=window, return_complex=True)
    # The last frame is of the padding at the end.
    power = spectrum[..., :-1].abs() ** 2
    mel = filters @ power
    logs = torch.clamp(mel, min=1e-10).log10()
    floor = logs.max() - 8.0
    return (torch.maximum(logs, floor) + 4.0) / 4.0


def bench_mel(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race log-mel of true lengths against named ways to make it.

    They are openai-whisper's on the same lengths and padded to 30 s, and the feature extractor of
    transformers.
    """
    import librosa

    waves = corpus.waves[:40]
    padded = [np.pad(wave, (0, THIRTY_S - len(wave))) for wave in waves]
    extracted = _extractor(waves)
    filters = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80))

    # The last frames look into the padding, which is not the same everywhere.
    def cut(found: list) -> list[np.ndarray]:
        pairs = zip(found, waves, strict=True)
        return [np.asarray(features)[: len(wave) // 160 - 2] for features, wave in pairs]

    def ours() -> list[np.ndarray]:
        return cut([log_mel(wave) for wave in waves])

    def theirs(samples: list[np.ndarray]) -> list[np.ndarray]:
        return cut([whisper_mel(torch.from_numpy(wave), filters).T for wave in samples])

    ways = {
        "ours": ours,
        "openai-whisper's way, true length": lambda: theirs(waves),
        "openai-whisper's way, 30 s": lambda: theirs(padded),
        "WhisperFeatureExtractor": lambda: cut(extracted()),
    }
    ways |= other_loaders.whisper(waves, cut)
    goals = {
        "openai-whisper's way, true length": 1.8,
        "openai-whisper": 1.8,
    }
    same = _close_to(1e-3)
    limit = _transform_alone(waves)
    return race("log-mel, 40 utterances", ways, same, rounds, goals, limit)


def _extractor(waves: list[np.ndarray]) -> Any:
    """Return what makes features as transformers does: (frames of 30 s, mels) each."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()

    def extract() -> list[np.ndarray]:
        found = []
        for wave in waves:
            made = extractor(wave, sampling_rate=16000, return_tensors="np")
            found.append(made.input_features[0].T)
        return found

    return extract


def _transform_alone(waves: list[np.ndarray]) -> tuple[str, Any]:
    """Return the limit of log-mel: a transform of frames cut beforehand, and one product."""
    frames = []
    for wave in waves:
        windows = torch.from_numpy(wave).unfold(0, 400, 160)
        frames.append(windows.contiguous())
    product = torch.randn(201, 80)

    def transform() -> list[torch.Tensor]:
        found = []
        for each in frames:
            spectrum = torch.view_as_real(torch.fft.rfft(each))
            found.append(spectrum[..., 0] @ product)
        return found

    return "Fourier transform of the frames, one product", transform


def _equal(one: Any, other: Any) -> None:
    assert one == other


def _close_to(tolerance: float) -> Any:
    """Return a check that two lists of arrays are the same up to ``tolerance``."""

    def same(ours: list, theirs: list) -> None:
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert len(one) == len(other)
            assert np.allclose(np.asarray(one), np.asarray(other), atol=tolerance)

    return same


BENCHES = {
    "tar": bench_tar,
    "wav": bench_wav,
    "mel": bench_mel,
    "loader": bench_loader,
    "device": bench_device,
}
NAMES = [*BENCHES, "resume", "padding"]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--utterances", type=int, default=2000, help="of the corpus")
    parser.add_argument("--resume_utterances", type=int, default=10000, help="of 1 s, for resume")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as long, tempfile.TemporaryDirectory() as short:
        rows = _benched(args, Path(long), Path(short))
    show(rows)
    return 0


def _benched(args: argparse.Namespace, long: Path, short: Path) -> list[str]:
    """Return the rows of all benchmarks asked for; corpora are made where they are needed."""
    rows: list[str] = []
    corpus = None
    for name in args.only:
        if name == "padding":
            rows += padding(50_000, MAX_FRAMES)
        elif name == "resume":
            seconds = (1.0, 1.2)
            resumed = NoiseCorpus(short, args.resume_utterances, seconds, RESUMED)
            rows += bench_resume(resumed, args.rounds)
        else:
            corpus = corpus or NoiseCorpus(long, args.utterances, (2.0, 12.0))
            rows += BENCHES[name](corpus, args.rounds)
    return rows


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Reading data, ours against named alternatives: tar, wav, log-mel, the whole loader, its first
batch, going on after a stop, padding.

    python tools/bench/data_path.py --only mel loader --rounds 5

Every way is checked to give the same output before it is timed (side_by_side.py). The audio is
noise bursts of 2 to 12 s. webdataset, lhotse and openai-whisper are raced where they are installed
(pip install webdataset lhotse openai-whisper); what is not is named and left out.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import io
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import other_loaders  # noqa: E402
import plain_loader  # noqa: E402
from side_by_side import race, show  # noqa: E402

from wenet_osum.config import BatchConfig, DataConfig, SourceConfig, from_dict  # noqa: E402
from wenet_osum.dataset import tar  # noqa: E402
from wenet_osum.dataset.audio import decode, write_wav  # noqa: E402
from wenet_osum.dataset.dataset import Mixture  # noqa: E402
from wenet_osum.dataset.log_mel import log_mel  # noqa: E402
from wenet_osum.dataset.shard import pack, write_list  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.small.train_tokenizer import train_tokenizer  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

MAX_FRAMES = 12000
RESUMED = 2000  # frames of a micro-batch of utterances of 1 s: 20 of them
DISTINCT = 100  # recordings; more utterances repeat them


class Corpus:
    """Shards of noise with texts, their list, a template and the loader's configuration."""

    def __init__(
        self, folder: Path, count: int, seconds: tuple[float, float], max_frames: int = MAX_FRAMES
    ) -> None:
        draw, self.folder, self.count = np.random.default_rng(0), folder, count
        self.waves = [
            draw.normal(0, 0.1, int(16000 * draw.uniform(*seconds))).astype(np.float32)
            for _ in range(min(DISTINCT, count))
        ]
        for i, wave in enumerate(self.waves):
            (folder / f"{i}.wav").write_bytes(write_wav(wave))
        rows = [
            Utterance(
                f"u{i:06d}",
                str(folder / f"{i % len(self.waves)}.wav"),
                txt=f"utterance number {i}",
                lang="en",
            )
            for i in range(count)
        ]
        self.shards = [
            str(p) for p in pack(rows, folder / "shards", 500, log=lambda line: None).paths
        ]
        write_list(folder / "data.list", self.shards)
        self.template = Template(
            train_tokenizer([r.txt for r in rows[:50]] + ["转录 识别 语音"], 400)
        )
        tree = {
            "model": {"kind": "whisper", "whisper": "w"},
            "train_parts": {"*": {}},
            "max_steps": 1,
            "batch": {"max_frames": max_frames, "max_tokens": 10**6},
        }
        data = DataConfig([SourceConfig("noise", str(folder / "data.list"), tasks={"asr": 1.0})])
        self.mixture = Mixture(data, from_dict(tree), self.template, 80)


def by_key(found: list[Any]) -> dict[str, torch.Tensor]:
    """Key → features without padding, of our batches or the plain loader's."""
    rows = [
        (b.keys, b.features, b.feature_lengths)
        if hasattr(b, "keys") and not isinstance(b, dict)
        else (b["keys"], b["features"], b["lengths"])
        for b in found
    ]
    return {
        key: f[:n]
        for keys, features, lengths in rows
        for key, f, n in zip(keys, features, lengths.tolist(), strict=True)
    }


def same_features(ours: list[Any], theirs: list[Any]) -> None:
    """The same utterances with the same features."""
    a, b = by_key(ours), by_key(theirs)
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


def bench_tar(corpus: Corpus, rounds: int) -> list[str]:
    """All members of a shard."""
    data = Path(corpus.shards[0]).read_bytes()

    def ours() -> list[tuple[str, int]]:
        view = memoryview(data)
        return [(m.name, len(view[m.data : m.data + m.size])) for m in tar.walk(view)]

    def stdlib() -> list[tuple[str, int]]:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as file:
            return [(m.name, len(file.extractfile(m).read())) for m in file]

    starts, view = [m.data - tar.BLOCK for m in tar.walk(memoryview(data))], memoryview(data)

    def heads() -> list[bytes]:
        return [bytes(view[at : at + tar.BLOCK]) for at in starts]

    ways = {"ours": ours, "tarfile": stdlib} | other_loaders.tar(data)
    return race("tar, 500 utterances", ways, _equal, rounds, limit=("reading its headers", heads))


def bench_wav(corpus: Corpus, rounds: int) -> list[str]:
    """PCM16 to float32."""
    files = [write_wav(w) for w in corpus.waves]
    ways = {
        "ours": lambda: [decode(f) for f in files],
        "soundfile": lambda: [soundfile.read(io.BytesIO(f), dtype="float32")[0] for f in files],
    }
    raw = [np.frombuffer(f[44:], np.int16) for f in files]
    limit = ("int16 to float32", lambda: [r.astype(np.float32) for r in raw])
    same = lambda a, b: _equal([len(x) for x in a], [len(y) for y in b]) or _close(a, b, 1e-4)  # noqa: E731
    return race(f"wav, {len(files)} files", ways, same, rounds, limit=limit)


def whisper_mel(wave: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """As openai-whisper does it: (mels, frames)."""
    power = (
        torch.stft(wave, 400, 160, window=torch.hann_window(400), return_complex=True)[
            ..., :-1
        ].abs()
        ** 2
    )
    logs = torch.clamp(filters @ power, min=1e-10).log10()
    return (torch.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


def bench_mel(corpus: Corpus, rounds: int) -> list[str]:
    """Log-mel of true lengths; against openai-whisper's way on the same and padded to 30 s, and the
    feature extractor of transformers.
    """
    import librosa
    from transformers import WhisperFeatureExtractor

    waves, extractor = corpus.waves[:40], WhisperFeatureExtractor()
    filters = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80))
    pads = [np.pad(w, (0, 480000 - len(w))) for w in waves]

    def cut(found: list) -> list[np.ndarray]:  # the last frames look into the padding
        return [np.asarray(f)[: len(w) // 160 - 2] for f, w in zip(found, waves, strict=True)]

    ways = {
        "ours": lambda: cut([log_mel(w) for w in waves]),
        "openai-whisper's way, true length": lambda: cut(
            [whisper_mel(torch.from_numpy(w), filters).T for w in waves]
        ),
        "openai-whisper's way, 30 s": lambda: cut(
            [whisper_mel(torch.from_numpy(w), filters).T for w in pads]
        ),
        "WhisperFeatureExtractor": lambda: cut(
            [
                extractor(w, sampling_rate=16000, return_tensors="np").input_features[0].T
                for w in waves
            ]
        ),
    }
    ways |= other_loaders.whisper(waves, cut)
    frames = [
        torch.from_numpy(w).unfold(0, 400, 160).contiguous() for w in waves
    ]  # windowed beforehand
    product = torch.randn(201, 80)
    limit = (
        "Fourier transform of the frames, one product",
        lambda: [torch.view_as_real(torch.fft.rfft(f))[..., 0] @ product for f in frames],
    )
    goals = dict.fromkeys(("openai-whisper's way, true length", "openai-whisper"), 1.8)
    return race(
        "log-mel, 40 utterances", ways, lambda a, b: _close(a, b, 1e-3), rounds, goals, limit
    )


def bench_loader(corpus: Corpus, rounds: int) -> list[str]:
    """Shards to padded batches, one process; and the first batch alone."""
    encode = corpus.template.encode
    chains: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: iter(corpus.mixture.epoch(0)),
        "plain WeNet way": lambda: plain_loader.load(corpus.shards, encode, MAX_FRAMES),
    }
    chains |= other_loaders.loaders(corpus.folder, corpus.shards, encode, MAX_FRAMES)
    first = next(chains["ours"]())
    whole, start = (
        [f"{k % len(corpus.waves)}.wav" for k in range(count)]
        for count in (corpus.count, len(first.keys))
    )
    limits = [
        (
            "decoding and log-mel alone",
            partial(_decoded_mels, [(corpus.folder / name).read_bytes() for name in names]),
        )
        for names in (whole, start)
    ]
    ways = {name: lambda chain=chain: list(chain()) for name, chain in chains.items()}
    rows = race("whole loader", ways, same_features, rounds, {"plain WeNet way": 3}, limits[0])
    truth = by_key(list(chains["ours"]()))

    def right(_: Any, batch: Any) -> None:
        assert all(
            torch.allclose(features, truth[key], atol=1e-4)
            for key, features in by_key([batch]).items()
        )

    ways = {name: lambda chain=chain: next(chain()) for name, chain in chains.items()}
    return rows + race("first batch", ways, right, rounds, limit=limits[1])


def _decoded_mels(files: list[bytes]) -> list[torch.Tensor]:
    return [log_mel(decode(file)) for file in files]


def bench_device(corpus: Corpus, rounds: int) -> list[str]:
    """What a data process does when the device makes the features, against all of it."""
    from wenet_osum.dataset.device_features import with_features

    later = dataclasses.replace(corpus.mixture.conf, features="device")
    mixture = copy.copy(corpus.mixture)
    mixture.conf = later

    def same(ours: list[Any], theirs: list[Any]) -> None:
        same_features([with_features(batch, 80) for batch in ours], theirs)

    ways = {
        "ours, features: device": lambda: list(mixture.epoch(0)),
        "ours, features: cpu": lambda: list(corpus.mixture.epoch(0)),
    }
    return race("data process", ways, same, rounds)


def bench_resume(corpus: Corpus, rounds: int) -> list[str]:
    """The first micro-batch after nine tenths of the epoch, of as many utterances as one of 12,000
    frames holds: a seek against reading again and throwing away, which the plan would do alike, and
    the plain chain has to."""
    plan = corpus.mixture.epoch(0).plan
    done = 9 * len(plan) // 10
    expected = plan.bounds[done + 1] - plan.bounds[done]

    def seek() -> Any:
        return next(iter(corpus.mixture.epoch(0, start=done)))

    def replay() -> Any:
        return next(islice(iter(corpus.mixture.epoch(0)), done, None))

    def same(a: Any, b: Any) -> None:
        assert a.keys == b.keys and torch.equal(a.features, b.features) and len(a.keys) == expected

    files = [
        corpus.folder / f"{int(row) % len(corpus.waves)}.wav"
        for row in plan.row[plan.bounds[done] : plan.bounds[done + 1]]
    ]
    limit = (
        "decoding and log-mel of the one batch",
        partial(_decoded_mels, [file.read_bytes() for file in files]),
    )
    work, ways = (
        f"resume after {plan.bounds[done]} of {plan.bounds[-1]} utterances",
        {"ours, a seek": seek, "replay": replay},
    )
    rows = race(work, ways, same, rounds, {"replay": 100}, limit)

    def plain() -> Any:
        return next(
            islice(plain_loader.load(corpus.shards, corpus.template.encode, RESUMED), done, None)
        )

    def read(
        _: Any, batch: Any
    ) -> None:  # another order: that it reads the same is held by the loader's race
        assert len(batch["keys"])

    return rows + race(
        work,
        {"ours, a seek": seek, "replay of the plain WeNet way": plain},
        read,
        min(rounds, 3),
        {"replay of the plain WeNet way": 100},
    )


def padding(count: int) -> list[str]:
    """Shares of padding for lengths like those of read and spontaneous speech (lognormal, median 5
    s, cut at 30 s); nothing is timed.
    """
    frames = np.clip(np.random.default_rng(0).lognormal(np.log(500), 0.6, count), 50, 3000).astype(
        int
    )
    budget = BatchConfig(max_frames=MAX_FRAMES, max_tokens=10**6, window=8)

    def share(order: np.ndarray) -> float:
        group, longest, computed = 0, 0, 0
        for n in order:
            grown = max(longest, n)
            if group and grown * (group + 1) > MAX_FRAMES:
                computed, group, grown = computed + group * longest, 0, n
            group, longest = group + 1, grown
        return 1 - order.sum() / (computed + group * longest)

    from wenet_osum.dataset.compose import Costs, cut

    window = [
        np.sort(part)[::-1]
        for part in np.array_split(frames, max(1, count // (budget.window * 1000)))
    ]
    computed = 0
    for part in window:
        starts = cut(Costs(part, np.ones(len(part), dtype=int)), budget)
        computed += sum(
            (b - a) * part[a] for a, b in zip(starts, [*starts[1:], len(part)], strict=True)
        )
    buffers = np.concatenate(
        [np.sort(part) for part in np.array_split(frames, max(1, count // 500))]
    )
    rows = {
        "ours": 1 - frames.sum() / computed,
        "sorted in buffers of 500": share(buffers),
        "in random order": share(frames),
    }
    return [
        f"| padding, {count} utterances | {name} | {100 * value:.1f} % of frames |  | "
        f"{'< 5 %' if name == 'ours' else ''} |"
        for name, value in rows.items()
    ]


def _equal(a: Any, b: Any) -> None:
    assert a == b


def _close(a: list, b: list, tolerance: float) -> None:
    assert len(a) == len(b) and all(
        np.allclose(np.asarray(x), np.asarray(y), atol=tolerance) for x, y in zip(a, b, strict=True)
    )


BENCHES = {
    "tar": bench_tar,
    "wav": bench_wav,
    "mel": bench_mel,
    "loader": bench_loader,
    "device": bench_device,
    "resume": bench_resume,
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=[*BENCHES, "padding"], default=[*BENCHES, "padding"]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--utterances", type=int, default=2000, help="of the corpus")
    parser.add_argument("--resume_utterances", type=int, default=10000, help="of 1 s, for resume")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        corpus = (
            Corpus(Path(first), args.utterances, (2.0, 12.0))
            if set(args.only) - {"padding", "resume"}
            else None
        )
        for name in args.only:
            if name == "padding":
                rows += padding(50_000)
            else:
                rows += BENCHES[name](
                    Corpus(Path(second), args.resume_utterances, (1.0, 1.2), RESUMED)
                    if name == "resume"
                    else corpus,
                    args.rounds,
                )
    show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Many clients at once against `wenet_osum serve` on loopback: is any request lost, is every answer
that of offline decoding?

    python \\
        tools/bench/serve_load.py                                       # a small model with random weights
    python tools/bench/serve_load.py --model exp/x/final --clients 64 --requests 1000
    python tools/bench/serve_load.py --model exp/x/final --sounds 10 \\
        --wavs data/test/wav/*.wav   # recordings beside the noise

One request in six is bad: no audio, empty, cut short, too long, too large, without a file, an
unknown task. The queue is smaller than the number of clients, so that some are told to come again
(429) and do. Prints a table; exit status 1 when anything was lost or differs.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MAX_SECONDS, MAX_MB = 40.0, 7.0  # limits of the server under test
TASKS = (
    "asr",
    "srwt",
    "ser",
    "<TRANSCRIBE><EMOTION><GENDER>",
    "<AGE><GENDER>",
    "<STYLE><TRANSCRIBE>",
    "sttc",
)
BAD_SHARE = 1 / 6
LONG_SHARE = 0.03  # of the sounds: over 30 s, decoded in pieces
PATIENCE_S = 600.0  # for one answer
TRIES = 200  # of a request that is told to come again


@dataclass
class Ask:
    """A request, and the status it should be answered with."""

    data: bytes | None
    fields: dict[str, str]
    status: int = 200
    sound: int = -1  # number of the good sound
    kind: str = "good"


@dataclass
class Told:
    """What clients were told."""

    answers: list[Any] = field(default_factory=list)  # (status, JSON) by request; None: lost
    latencies: list[float] = field(default_factory=list)  # s, of requests that were let in
    again: int = 0  # answers 429
    spent_s: float = 0.0


def write_random_model(folder: Path, seed: int = 3) -> None:
    """A small model whose weights are drawn wide, so that its answers differ from sound to
    sound.
    """
    import torch

    from wenet_osum.models.osum import OsumModel
    from wenet_osum.small.models import SmallLlm, SmallWhisper, save_whisper, small_llm
    from wenet_osum.small.train_tokenizer import train_tokenizer
    from wenet_osum.text.template import Template

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["the cat sat on the mat", "今天天气很好。"], vocab_size=420)
    save_whisper(
        SmallWhisper(width=32, heads=2, ffn=64, encoder_layers=1, decoder_layers=1, mels=16),
        tokenizer,
        folder / "whisper",
    )
    small_llm(SmallLlm(width=32, layers=2, heads=4, ffn=64), tokenizer).save_pretrained(
        folder / "llm"
    )
    tokenizer.save_pretrained(str(folder / "llm"))
    model = OsumModel.from_parts(
        folder / "whisper", folder / "llm", adapter_conf={"layers": 1, "heads": 2, "ffn": 32}
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in name:
                weight.normal_(std=0.3)
    model.save_pretrained(folder / "model")
    Template(tokenizer).save(folder / "model")


def sounds(number: int, draws: np.random.Generator) -> list[bytes]:
    """Bursts of noise in several formats, rates and lengths."""
    import soundfile

    found = []
    for place in range(number):
        rate, form = [(16000, "WAV"), (16000, "FLAC"), (44100, "WAV"), (8000, "OGG")][place % 4]
        seconds = (
            31.0 + 4 * draws.random()
            if place < math.ceil(LONG_SHARE * number)
            else 0.3 + 4 * draws.random()
        )
        loudness = np.repeat(draws.random(math.ceil(seconds / 0.2)), round(0.2 * rate))[
            : round(seconds * rate)
        ]
        noise = (0.3 * loudness * draws.standard_normal(len(loudness))).clip(-1, 1)
        out = io.BytesIO()
        soundfile.write(
            out, np.stack([noise, 0.5 * noise], 1) if place % 5 == 4 else noise, rate, format=form
        )
        found.append(out.getvalue())
    return found


def bad_asks(good: bytes) -> list[Ask]:
    """One of each kind of bad request; ``good`` is a WAV file."""
    from wenet_osum.dataset.audio import write_wav

    asr = {"task": "asr"}
    return [
        Ask(b"this is no recording" * 50, asr, 400, kind="not audio"),
        Ask(b"", asr, 400, kind="empty"),
        Ask(good[: len(good) // 2], asr, 400, kind="cut short"),
        Ask(
            write_wav(np.zeros(round(8000 * (MAX_SECONDS + 5)), np.float32), 8000),
            asr,
            413,
            kind="too long",
        ),
        Ask(b"RIFF" + bytes(round(1.2e6 * MAX_MB)), asr, 413, kind="too large"),
        Ask(None, asr, 400, kind="no file"),
        Ask(good, {"task": "emotionn"}, 400, kind="unknown task"),
        Ask(good, {"response_format": "docx"}, 400, kind="unknown format"),
    ]


def make_asks(number: int, good: list[bytes], seed: int = 1) -> list[Ask]:
    """Requests in a mixed order, bad ones among them."""
    draws = np.random.default_rng(seed)
    bad = bad_asks(min((data for data in good if data[:4] == b"RIFF"), key=len))
    asks = [bad[i % len(bad)] for i in range(round(number * BAD_SHARE))]
    for i in range(number - len(asks)):
        sound = i % len(good)
        asks.append(
            Ask(
                good[sound],
                {"task": TASKS[sound % len(TASKS)], "response_format": "verbose_json"},
                200,
                sound,
            )
        )
    return [asks[i] for i in draws.permutation(number)]


def drive(url: str, asks: list[Ask], clients: int) -> Told:
    """Send every request, each of ``clients`` threads one after the other; 429 is obeyed and tried
    again.
    """
    import httpx

    told, lock, left = Told(answers=[None] * len(asks)), threading.Lock(), iter(range(len(asks)))

    def client() -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as connection:
            while True:
                with lock:
                    place = next(left, None)
                if place is None:
                    return
                ask_one(connection, asks[place], place)

    def ask_one(connection: httpx.Client, ask: Ask, place: int) -> None:
        for _ in range(TRIES):
            begin = time.monotonic()
            files = (
                {"file": ("a.wav", ask.data)} if ask.data is not None else {"no": (None, "file")}
            )
            try:
                answer = connection.post("/v1/audio/transcriptions", data=ask.fields, files=files)
            except httpx.HTTPError as error:
                print(
                    f"request {place} ({ask.kind}): {type(error).__name__}: {error}",
                    file=sys.stderr,
                )
                return
            if answer.status_code != 429:
                with lock:
                    told.answers[place] = (answer.status_code, answer.json())
                    told.latencies.append(time.monotonic() - begin)
                return
            with lock:
                told.again += 1
            time.sleep(float(answer.headers["retry-after"]))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.spent_s = time.monotonic() - begin
    return told


def offline(transcriber: Any, good: list[bytes]) -> list[Any]:
    """The answer to every sound, decoded one at a time."""
    return [transcriber([data], task=TASKS[i % len(TASKS)])[0] for i, data in enumerate(good)]


def faults(asks: list[Ask], told: Told, expected: list[Any]) -> Counter:
    """What went wrong, counted."""
    found: Counter = Counter()
    for ask, answer in zip(asks, told.answers, strict=True):
        if answer is None:
            found["lost"] += 1
        elif answer[0] != ask.status:
            found[f"{ask.kind}: status {answer[0]} instead of {ask.status}"] += 1
        elif ask.status == 200 and not same(answer[1], expected[ask.sound]):
            found["differs from offline decoding"] += 1
        elif ask.status != 200 and not answer[1]["error"]["message"]:
            found[f"{ask.kind}: no message"] += 1
    return found


def same(answer: dict[str, Any], expected: Any) -> bool:
    """Whether a response says what offline decoding says; probabilities to 1e-4."""
    words = (
        None
        if expected.words is None
        else [{"word": w.text, "start": w.start, "end": w.end} for w in expected.words]
    )
    ours = (
        answer["raw"],
        answer["text"],
        answer.get("labels", {}),
        answer.get("words"),
        answer.get("reply"),
        answer["duration"],
    )
    theirs = (
        expected.text,
        expected.transcript or "",
        expected.labels,
        words,
        expected.reply,
        expected.duration,
    )
    probs = answer.get("probs", {})
    if probs.keys() != expected.probs.keys():
        return False
    close = all(
        abs(probs[name][label] - p) < 1e-4
        for name, row in expected.probs.items()
        for label, p in row.items()
    )
    return not expected.error and ours == theirs and close


def batch_sizes(metrics: str) -> dict[str, int]:
    """Batches by size out of /metrics."""
    rows = re.findall(r'batch_size_bucket\{le="([\w.+]+)"\} (\d+)', metrics)
    totals = [int(total) for _, total in rows]
    return {
        f"≤ {bound}": n
        for (bound, _), n in zip(rows, np.diff([0, *totals]).tolist(), strict=True)
        if n
    }


def report(
    asks: list[Ask], told: Told, metrics: str, audio_s: float, args: argparse.Namespace
) -> None:
    """The table on stdout."""
    statuses = Counter(answer[0] for answer in told.answers if answer)
    p50, p90, p99 = np.quantile(told.latencies, [0.5, 0.9, 0.99])
    count = int(re.search(r"batch_size_count (\d+)", metrics)[1])
    mean = float(re.search(r"batch_size_sum ([\d.]+)", metrics)[1]) / max(count, 1)
    rows = {
        f"requests, {args.clients} clients, queue of {args.queue}": len(asks),
        "answered": f"{sum(statuses.values())}: "
        + ", ".join(f"{n} × {status}" for status, n in sorted(statuses.items())),
        "told to come again (429)": told.again,
        "requests/s": f"{len(asks) / told.spent_s:.1f}",
        "seconds of audio a second": f"{audio_s / told.spent_s:.1f}",
        "latency p50 / p90 / p99, s": f"{p50:.2f} / {p90:.2f} / {p99:.2f}",
        "batches, mean size": f"{count}, {mean:.1f}",
        "batches by size": ", ".join(f"{n} × {size}" for size, n in batch_sizes(metrics).items()),
    }
    print(
        "| | |\n|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        sep="\n",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    """Start a server, ask, compare, print; 1 when anything was lost or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="model folder (default: small, with random weights)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--queue", type=int, default=48, help="of the server")
    parser.add_argument(
        "--sounds", type=int, default=70, help="different bursts of noise, at least one over 30 s"
    )
    parser.add_argument("--wavs", nargs="+", default=[], help="recordings to send as well")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the server")
    parser.add_argument(
        "--max_tokens",
        type=int,
        help="as of wenet_osum serve (default: 40 for the random model, which knows no end)",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if not args.model:
            write_random_model(Path(folder))
        model = args.model or f"{folder}/model"
        return bench(
            str(Path(model).resolve()) if Path(model).exists() else model, args
        )  # the server runs in another folder


def bench(model: str, args: argparse.Namespace) -> int:
    """Offline answers, then the same from the server."""
    import httpx

    import wenet_osum

    tokens = args.max_tokens or (None if args.model else 40)
    good = sounds(args.sounds, np.random.default_rng(5)) + [
        Path(name).read_bytes() for name in args.wavs
    ]
    expected = offline(wenet_osum.load(model, device="cpu", max_tokens=tokens), good)
    asks = make_asks(args.requests, good)
    options = {
        "max_mb": MAX_MB,
        "max_seconds": MAX_SECONDS,
        "queue": args.queue,
        "threads": args.threads,
        "timeout": PATIENCE_S,
        "port": 0,
    }
    command = [
        sys.executable,
        "-m",
        "wenet_osum",
        "serve",
        "--model",
        model,
        "--no_page",
        *(f"--{n}={v}" for n, v in options.items()),
    ]
    server = subprocess.Popen(
        command + ([f"--max_tokens={tokens}"] if tokens else []),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        url = server.stdout.readline().strip()
        if not url:
            print("the server did not start", file=sys.stderr)
            return 1
        told = drive(url, asks, args.clients)
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    finally:
        server.terminate()
        status = server.wait(PATIENCE_S)
    report(
        asks,
        told,
        metrics,
        sum(expected[ask.sound].duration for ask in asks if ask.sound >= 0),
        args,
    )
    wrong = faults(asks, told, expected)
    lines = [f"{n:6d}  {what}" for what, n in wrong.most_common()] + (
        [f"the server left with exit status {status}"] if status else []
    )
    print(
        *(lines or ["nothing was lost, and every good answer is that of offline decoding"]),
        sep="\n",
    )
    return 1 if wrong or status else 0


if __name__ == "__main__":
    sys.exit(main())

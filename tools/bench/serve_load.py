#!/usr/bin/env python3
"""Many clients at once against `wenet_osum serve` on loopback.

    python tools/bench/serve_load.py
    python tools/bench/serve_load.py --model exp/x/final --clients 64 --requests 1000
    python tools/bench/serve_load.py --model exp/x/final --sounds 10 --wavs data/test/wav/*.wav

Is any request lost, is every answer that of offline decoding? Without --model a small model with
random weights answers; --wavs are recordings beside the noise. One request in six is bad: no audio,
empty, cut short, too long, too large, without a file, an unknown task. The queue is smaller than
the number of clients, so that some are told to come again (429) and do. Prints a table; exit status
1 when anything was lost or differs.
"""

from __future__ import annotations

import argparse
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
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from serve_requests import MAX_MB, MAX_SECONDS, TASKS, Ask, make_asks, sounds  # noqa: E402

PATIENCE_S = 600.0  # for one answer
TRIES = 200  # of a request that is told to come again


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


class Clients:
    """Threads that send requests, each one after the other, until none is left."""

    def __init__(self, url: str, asks: list[Ask]) -> None:
        self.url = url
        self.asks = asks
        self.told = Told(answers=[None] * len(asks))
        self.lock = threading.Lock()
        self.left = iter(range(len(asks)))

    def run(self) -> None:
        """Send requests as one client."""
        import httpx

        with httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False) as connection:
            while True:
                with self.lock:
                    place = next(self.left, None)
                if place is None:
                    return
                self.ask(connection, place)

    def ask(self, connection: Any, place: int) -> None:
        """Send one request; 429 is obeyed and tried again."""
        for _ in range(TRIES):
            begin = time.monotonic()
            answer = self.post(connection, place)
            if answer is None:
                return
            if answer.status_code != 429:
                with self.lock:
                    self.told.answers[place] = (answer.status_code, answer.json())
                    self.told.latencies.append(time.monotonic() - begin)
                return
            with self.lock:
                self.told.again += 1
            time.sleep(float(answer.headers["retry-after"]))

    def post(self, connection: Any, place: int) -> Any:
        """Return the response to one request; None where the connection failed, which is told."""
        import httpx

        ask = self.asks[place]
        files = {"file": ("a.wav", ask.data)}
        if ask.data is None:
            files = {"no": (None, "file")}
        try:
            return connection.post("/v1/audio/transcriptions", data=ask.fields, files=files)
        except httpx.HTTPError as error:
            fault = f"{type(error).__name__}: {error}"
            print(f"request {place} ({ask.kind}): {fault}", file=sys.stderr)
            return None


def drive(url: str, asks: list[Ask], clients: int) -> Told:
    """Send every request from as many threads as there are ``clients``."""
    work = Clients(url, asks)
    threads = [threading.Thread(target=work.run) for _ in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work.told.spent_s = time.monotonic() - begin
    return work.told


def offline(transcriber: Any, good: list[bytes]) -> list[Any]:
    """Return the answer to every sound, decoded one at a time."""
    answers = []
    for place, data in enumerate(good):
        task = TASKS[place % len(TASKS)]
        answers += transcriber([data], task=task)
    return answers


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
    """Tell whether a response says what offline decoding says; probabilities to 1e-4."""
    words = None
    if expected.words is not None:
        words = [{"word": w.text, "start": w.start, "end": w.end} for w in expected.words]
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
    close = close_probs(answer.get("probs", {}), expected.probs)
    return not expected.error and ours == theirs and close


def close_probs(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> bool:
    """Tell whether the same fields have the same probabilities to 1e-4."""
    if ours.keys() != theirs.keys():
        return False
    for name, row in theirs.items():
        for label, prob in row.items():
            if abs(ours[name][label] - prob) >= 1e-4:
                return False
    return True


def batch_sizes(metrics: str) -> dict[str, int]:
    """Read the batches by size out of /metrics."""
    rows = re.findall(r'batch_size_bucket\{le="([\w.+]+)"\} (\d+)', metrics)
    found = {}
    below = 0
    for bound, total in rows:
        # A bucket counts the smaller batches as well.
        count = int(total) - below
        below = int(total)
        if count:
            found[f"≤ {bound}"] = count
    return found


def report(
    asks: list[Ask], told: Told, metrics: str, audio_s: float, args: argparse.Namespace
) -> None:
    """Print the table."""
    statuses = Counter(answer[0] for answer in told.answers if answer)
    by_status = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    by_size = ", ".join(f"{count} × {size}" for size, count in batch_sizes(metrics).items())
    p50, p90, p99 = np.quantile(told.latencies, [0.5, 0.9, 0.99])
    batches = int(re.search(r"batch_size_count (\d+)", metrics)[1])
    batched = float(re.search(r"batch_size_sum ([\d.]+)", metrics)[1])
    rows = {
        f"requests, {args.clients} clients, queue of {args.queue}": len(asks),
        "answered": f"{sum(statuses.values())}: {by_status}",
        "told to come again (429)": told.again,
        "requests/s": f"{len(asks) / told.spent_s:.1f}",
        "seconds of audio a second": f"{audio_s / told.spent_s:.1f}",
        "latency p50 / p90 / p99, s": f"{p50:.2f} / {p90:.2f} / {p99:.2f}",
        "batches, mean size": f"{batches}, {batched / max(batches, 1):.1f}",
        "batches by size": by_size,
    }
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Start a server, ask, compare, print; 1 when anything was lost or differs."""
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if not args.model:
            write_random_model(Path(folder))
        model = args.model or f"{folder}/model"
        # The server runs in another folder.
        if Path(model).exists():
            model = str(Path(model).resolve())
        return bench(model, args)


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--model", help="model folder (default: small, with random weights)")
    args.add_argument("--clients", type=int, default=64)
    args.add_argument("--requests", type=int, default=1000)
    args.add_argument("--queue", type=int, default=48, help="of the server")
    args.add_argument(
        "--sounds",
        type=int,
        default=70,
        help="different bursts of noise, at least one over 30 s",
    )
    args.add_argument("--wavs", nargs="+", default=[], help="recordings to send as well")
    args.add_argument("--threads", type=int, default=1, help="torch threads of the server")
    args.add_argument(
        "--max_tokens",
        type=int,
        help="as of wenet_osum serve (default: 40 for the random model, which knows no end)",
    )
    return args


def bench(model: str, args: argparse.Namespace) -> int:
    """Decode offline, ask the server for the same, and compare."""
    import wenet_osum

    tokens = args.max_tokens or (None if args.model else 40)
    good = sounds(args.sounds, np.random.default_rng(5))
    good += [Path(name).read_bytes() for name in args.wavs]
    expected = offline(wenet_osum.load(model, device="cpu", max_tokens=tokens), good)
    asks = make_asks(args.requests, good)
    served = ask_server(model, asks, tokens, args)
    if served is None:
        print("the server did not start", file=sys.stderr)
        return 1
    told, metrics, status = served

    audio_s = sum(expected[ask.sound].duration for ask in asks if ask.sound >= 0)
    report(asks, told, metrics, audio_s, args)
    wrong = faults(asks, told, expected)
    for what, count in wrong.most_common():
        print(f"{count:6d}  {what}")
    if status:
        print(f"the server left with exit status {status}")
    if wrong or status:
        return 1
    print("nothing was lost, and every good answer is that of offline decoding")
    return 0


def ask_server(
    model: str, asks: list[Ask], tokens: int | None, args: argparse.Namespace
) -> tuple[Told, str, int] | None:
    """Start a server, send all requests, stop it.

    Returns what was told, its metrics, and its exit status; None when it did not start.
    """
    import httpx

    command = [
        *(sys.executable, "-m", "wenet_osum", "serve", "--no_page"),
        f"--model={model}",
        f"--max_mb={MAX_MB}",
        f"--max_seconds={MAX_SECONDS}",
        f"--queue={args.queue}",
        f"--threads={args.threads}",
        f"--timeout={PATIENCE_S}",
        "--port=0",
    ]
    if tokens:
        command.append(f"--max_tokens={tokens}")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        # Its first line is its address.
        url = server.stdout.readline().strip()
        if not url:
            return None
        told = drive(url, asks, args.clients)
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    finally:
        server.terminate()
        status = server.wait(PATIENCE_S)
    return told, metrics, status


if __name__ == "__main__":
    sys.exit(main())

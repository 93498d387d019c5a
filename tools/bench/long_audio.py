#!/usr/bin/env python3
"""How much memory and time recognize takes for recordings of 0.1 s to 3 hours, each as a process of
its own.

    python tools/bench/long_audio.py --model exp/x/final --list data/test.list --task asr

Recordings are clips of the list one after the other, with pauses between (0.2 to 0.8 s), or noise
in bursts without a list. The peak is the resident memory of the process with everything in it:
Python, torch, the model. Fails when an answer is missing or a piece is longer than 28 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wenet_osum.dataset import audio  # noqa: E402
from wenet_osum.decode.jobs import read_list  # noqa: E402
from wenet_osum.records import SAMPLE_RATE  # noqa: E402

LENGTHS_S = (0.1, 60.0, 600.0, 3600.0, 10800.0)
LONGEST_PIECE_S = 28.0
WHOLE_S = 30.0


def clips(path: str | None) -> list[np.ndarray]:
    """Sounds to put together, (samples,) at 16 kHz."""
    if not path:
        return [
            np.random.default_rng(i).normal(0, 0.1, SAMPLE_RATE + 1000 * i).astype(np.float32)
            for i in range(20)
        ]
    read = [job.read() for job in read_list(path)[0] if not job.error and job.seconds <= WHOLE_S]
    return [
        audio.decode(source if isinstance(source, bytes) else source.read_bytes())
        for _, source in read[:200]
    ]


def stretches(sounds: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Sounds and pauses without end."""
    draws = np.random.default_rng(1)
    while True:
        yield sounds[draws.integers(len(sounds))]
        yield np.zeros(round(draws.uniform(0.2, 0.8) * SAMPLE_RATE), np.float32)


def record(sounds: list[np.ndarray], seconds: float, path: Path) -> None:
    """Write a recording of the given length."""
    left = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for part in stretches(sounds):
            file.write(part[:left])
            left -= len(part)
            if left <= 0:
                return


def measure(folder: Path, seconds: float, args: argparse.Namespace) -> tuple[float, float, dict]:
    """Peak memory in MiB, CPU seconds, and the answer. Raises RuntimeError when recognize fails."""
    listed = folder / "one.list"
    out = folder / f"out_{seconds}"
    listed.write_text(
        json.dumps({"key": f"{seconds}s", "wav": str(folder / "one.wav")}) + "\n", encoding="utf-8"
    )
    words = [
        "--model",
        args.model,
        "--list",
        listed,
        "--task",
        args.task,
        "--out",
        out,
        "--batch_size",
        args.batch_size,
        "--threads",
        args.threads,
    ]
    words += ["--max_tokens", args.max_tokens] if args.max_tokens else []
    running = subprocess.Popen(
        [sys.executable, "-m", "wenet_osum.bin.recognize", *map(str, words)],
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(running.pid, 0)
    if status:
        raise RuntimeError(f"recognize failed on {seconds} s")
    return (
        used.ru_maxrss / 1024,
        used.ru_utime + used.ru_stime,
        json.loads((out / "hyp.jsonl").read_text(encoding="utf-8")),
    )


def check(answer: dict, seconds: float) -> str:
    """What is wrong with an answer, or an empty text."""
    pieces = answer.get("pieces", [])
    if answer.get("error") or seconds > WHOLE_S and not pieces:
        return answer.get("error", "no pieces")
    if any(p["end"] - p["start"] > LONGEST_PIECE_S + 1e-3 for p in pieces):
        return "a piece is longer than 28 s"
    if pieces and abs(pieces[-1]["end"] - seconds) > 0.01:
        return "the end was not heard"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Measure every length and print a table; 1 when an answer is faulty."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument(
        "--list", help="list whose clips the recordings are made of (default: noise)"
    )
    parser.add_argument("--task", default="asr", help="task name or tags")
    parser.add_argument("--lengths", type=float, nargs="+", default=LENGTHS_S, help="seconds")
    parser.add_argument("--max_tokens", type=int, help="of recognize")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    sounds = clips(args.list)
    faults = 0
    print(
        "| recording, s | pieces | peak memory, MiB | CPU s | flags |\n|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        for seconds in args.lengths:
            record(sounds, seconds, Path(name) / "one.wav")
            peak, spent, answer = measure(Path(name), seconds, args)
            fault = check(answer, seconds)
            faults += bool(fault)
            flags = ", ".join(answer.get("flags", [])) + (f" FAULT: {fault}" if fault else "")
            print(
                f"| {seconds:g} | {len(answer.get('pieces', [])) or 1} | {peak:.0f} | {spent:.1f} "
                f"| {flags} |",
                flush=True,
            )
    if faults:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

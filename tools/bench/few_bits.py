#!/usr/bin/env python3
"""What weights of 16, 8 and 4 bits cost and save in decoding: scores, speed and memory.

    python tools/bench/few_bits.py --model exp/3_joint/final --set asr=a.jsonl ser=b.jsonl
    python tools/bench/few_bits.py --model … --set … --forms float32 int8 --batch_size 1

Each form answers the same lists in a process of its own, after one utterance that is not counted.
Told are the score of each list, seconds of audio per second of wall clock and of CPU time, the
memory of the process when it has answered (its peak comes from loading in float32), and the share
of answers that are those of float32. int8 and nf4 need requirements/quantization.txt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from side_by_side import status  # noqa: E402

from wenet_osum.bin import score  # noqa: E402
from wenet_osum.decode import load, options, write  # noqa: E402
from wenet_osum.decode.jobs import read_list  # noqa: E402
from wenet_osum.decode.pipeline import Recognizer  # noqa: E402
from wenet_osum.score import score_json  # noqa: E402
from wenet_osum.train.compare import answers  # noqa: E402

FORMS = ("float32", "bfloat16", "int8", "nf4")
METRICS = ("wer", "cer", "accuracy")
HEAD = ["form", "RTFx", "RTFx of CPU time", "memory, GB", "answers as float32"]


def settings_of(form: str) -> dict[str, Any]:
    """Return the options of decoding that a form stands for."""
    if form in ("float32", "bfloat16"):
        return {"dtype": form}
    return {"quantization": form}


def answer(args: argparse.Namespace) -> None:
    """Answer all lists in one form and print what it took, as JSON."""
    given = {
        "threads": args.threads,
        "batch_size": args.batch_size,
        "lang": args.lang,
        **settings_of(args.child),
    }
    decoding = options.from_settings(given)
    decoding.model = args.model
    decoding.task = "auto"
    recognizer = load.recognizer(decoding)

    took = {"wall": 0.0, "cpu": 0.0, "audio": 0.0}
    for task, path in named(args.set):
        answer_list(recognizer, task, path, Path(args.out) / task, took)
    took["memory"] = status("VmRSS") / 1e9
    print(json.dumps(took))


def answer_list(
    recognizer: Recognizer, task: str, path: str, folder: Path, took: dict[str, float]
) -> None:
    """Write the answers to a list into ``folder``, and add what it took."""
    jobs, _ = read_list(path)
    # The first pass of a form may lay out its weights anew.
    answers(recognizer, task, jobs[:1], folder / "first.jsonl")

    wall = time.perf_counter()
    cpu = time.process_time()
    answers(recognizer, task, jobs, folder / write.HYPOTHESES)
    took["wall"] += time.perf_counter() - wall
    took["cpu"] += time.process_time() - cpu
    for job in jobs:
        took["audio"] += job.seconds


def run(args: argparse.Namespace, form: str, out: Path) -> dict[str, Any]:
    """Answer in a process of its own; returns what it took."""
    command = [sys.executable, __file__, "--child", form, "--out", str(out)]
    command += ["--model", args.model, "--set", *args.set, "--lang", args.lang]
    for name in ("threads", "batch_size"):
        value = getattr(args, name)
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *_, last = done.stdout.splitlines()
    return json.loads(last)


def scores(args: argparse.Namespace, out: Path) -> dict[str, float]:
    """Score the answers of a form, each list by the errors of words and labels."""
    found = {}
    for task, path in named(args.set):
        answered = out / task
        folder = answered / "score"
        command = ["--set", f"{task}={path},{answered}", "--out", str(folder)]
        command += ["--normalizer", args.normalizer]
        score.main(command)
        _, rows = score_json.read(folder / "score.json")
        for figure in rows:
            if figure.metric in METRICS:
                found[f"{task} {figure.subset} {figure.metric}, %"] = figure.value
    return found


def texts(args: argparse.Namespace, out: Path) -> list[str]:
    """Return all answers of a form, list by list."""
    found = []
    for task, _ in named(args.set):
        answered = out / task
        path = answered / write.HYPOTHESES
        written = path.read_text(encoding="utf-8")
        for line in written.splitlines():
            answer = json.loads(line)
            found.append(answer["text"])
    return found


def named(sets: list[str]) -> list[tuple[str, str]]:
    """Take TASK=LIST apart."""
    found = []
    for text in sets:
        task, _, path = text.partition("=")
        found.append((task, path))
    return found


def row(form: str, took: dict[str, Any], same: float, figures: dict[str, float]) -> str:
    """Return the table row of a form."""
    audio = took["audio"]
    rate = audio / took["wall"]
    cpu_rate = audio / took["cpu"]
    cells = [
        form,
        f"{rate:.2f}",
        f"{cpu_rate:.2f}",
        f"{took['memory']:.2f}",
        f"{100 * same:.1f} %",
    ]
    cells += [f"{value:.2f}" for value in figures.values()]
    inside = " | ".join(cells)
    return f"| {inside} |"


def share_equal(ours: list[str], theirs: list[str]) -> float:
    """Return the share of texts that are the same in both lists."""
    equal = 0
    for one, other in zip(ours, theirs, strict=True):
        equal += one == other
    return equal / len(ours)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True)
    add("--set", nargs="+", required=True, metavar="TASK=LIST")
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    add("--threads", type=int, default=1)
    add("--batch_size", type=int, default=16)
    add("--lang", default="en", help="of the prompt")
    add("--normalizer", default="en:whisper_en,zh:wenet_zh")
    add("--out", help=argparse.SUPPRESS)
    add("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print one table."""
    args = arguments(argv)
    if args.child:
        answer(args)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        table = compare(args, Path(folder))
    print(*table, sep="\n")
    return 0


def compare(args: argparse.Namespace, folder: Path) -> list[str]:
    """Answer in every form; returns the lines of the table."""
    rows = []
    reference: list[str] = []
    for form in args.forms:
        out = folder / form
        took = run(args, form, out)
        said = texts(args, out)
        reference = reference or said
        same = share_equal(said, reference)
        figures = scores(args, out)
        line = row(form, took, same, figures)
        rows.append(line)
    columns = [*HEAD, *figures]
    head = " | ".join(columns)
    rule = "|---" * len(columns)
    return [f"| {head} |", f"{rule}|", *rows]


if __name__ == "__main__":
    sys.exit(main())

"""The pieces of gpu_day.py: each function takes the options of a piece and returns what JSON holds.

A rehearsal runs the same functions at tiny sizes on the CPU.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import decode_rate
import phase_rate
import pytest
import step_ways
import torch
from in_pieces import Answer

# Imported here once, for all processes that are forked from this one.
from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

from wenet_osum import dist
from wenet_osum.bin._metadata import commit
from wenet_osum.train.estimate import Mean
from wenet_osum.train.rehearse import total_gib

ROOT = Path(__file__).resolve().parents[2]
MARK = "mark.gpu"
# Seconds of speech and text of an utterance, rounds, batches, utterances of our micro-batch and the
# baselines'. None: as many as the conf's budgets hold. Padding to 30 s and all logits take memory,
# so that the baselines have fewer.
REAL = {
    "mean": Mean(8.0, prompt_tokens=20, answer_tokens=40),
    "rounds": 5,
    "batches": [1, 8, 64, 256],
    "utterances": None,
    "baseline_utterances": 8,
}
TINY = {
    "mean": Mean(1.0, prompt_tokens=4, answer_tokens=5),
    "rounds": 2,
    "batches": [1, 3],
    "utterances": 2,
    "baseline_utterances": 1,
}
# FLOPs of a measurement of the machine's own matrix products.
PRODUCTS = {False: 2e14, True: 1e9}
Options = dict[str, Any]


def setting(options: Options) -> Options:
    """Return the measures of a rehearsal, or the real ones."""
    if options["rehearse"]:
        return TINY
    return REAL


def machine(options: Options) -> Answer:
    """Describe the device and the code; ``error`` where there is no GPU and no rehearsal."""
    rehearse = options["rehearse"]
    if rehearse:
        name = "CPU (a rehearsal)"
    elif torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        return {
            "error": "there is no GPU that torch can use here; "
            "--rehearse runs the same on a CPU at tiny sizes"
        }
    return {
        "device": name,
        "memory GiB": round(total_gib(), 1),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "commit": options["commit"] or commit() or "unknown",
    }


def tests(options: Options) -> Answer:
    """Run the tests marked ``gpu``. Where there is a GPU, a skipped one is a fault."""
    files = []
    for path in sorted((ROOT / "test").rglob("test_*.py")):
        if MARK in path.read_text(encoding="utf-8"):
            files.append(str(path))
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.xml"
        pytest.main(
            ["-m", "gpu", "-q", "-rfEs", f"--rootdir={ROOT}", f"--junitxml={report}", *files]
        )
        rows = outcomes(Path(report))

    bad = {"failed"} if options["rehearse"] else {"failed", "skipped"}
    faults = [row["test"] for row in rows if row["outcome"] in bad]
    answer: Answer = {"rows": rows}
    if not rows:
        answer["error"] = "no test ran"
    if faults:
        answer["error"] = f"failed or skipped: {', '.join(faults)}"
    return answer


def outcomes(report: Path) -> list[dict[str, str]]:
    """Read the tests of a report in JUnit's form: name, outcome and the first line of why."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        row = {"test": case.get("name", ""), "outcome": "passed", "why": ""}
        for kind in ("failure", "error", "skipped"):
            found = case.find(kind)
            if found is not None:
                row["outcome"] = "skipped" if kind == "skipped" else "failed"
                why = found.get("message") or "no message"
                row["why"] = why.splitlines()[0]
        rows.append(row)
    return rows


def rates(options: Options) -> Answer:
    """Measure a phase of a size."""
    measures = setting(options)
    conf, sizes = phase_rate.read(options["size"], options["phase"], [], options["rehearse"])
    world = dist.start(1)
    try:
        found = phase_rate.run_phase(
            conf,
            sizes,
            measures["mean"],
            world,
            measures["utterances"],
            measures["baseline_utterances"],
            measures["rounds"],
        )
    finally:
        dist.stop()
    return told(found, measures)


def ways(options: Options) -> Answer:
    """Measure parts of a step beside what they were."""
    shapes = step_ways.setting_of(options["rehearse"])
    found = step_ways.measure_all(shapes, setting(options)["rounds"])
    return {"rows": [dataclasses.asdict(one) for one in found]}


def decoding(options: Options) -> Answer:
    """Measure decoding of a size at every batch."""
    measures = setting(options)
    # The model of phase 2: what LoRA has learned is in the weights when answers are wanted.
    conf, sizes = phase_rate.read(options["size"], "2", [], options["rehearse"])
    speaker = decode_rate.Speaker(conf, sizes, decode_rate.any_device())
    found = []
    for count in measures["batches"]:
        found += decode_rate.race(speaker, measures["mean"], count, measures["rounds"])
    return told(found, measures)


def told(found: list[Any], measures: Options) -> Answer:
    """Return records of ways as rows, with the utterance they are for."""
    rows = [dataclasses.asdict(one) for one in found]
    return {"rows": rows, "mean": dataclasses.asdict(measures["mean"])}


def products(options: Options) -> Answer:
    """Measure matrix products of the dtype that models run in: TFLOP/s, by round."""
    rehearse = options["rehearse"]
    device = decode_rate.any_device()
    dtype = torch.float32 if rehearse else torch.bfloat16
    flops = PRODUCTS[rehearse]
    run = phase_rate.products(flops, device, dtype)
    run()
    speeds = []
    for _ in range(setting(options)["rounds"]):
        took = phase_rate.seconds_of(run, device)
        speeds.append(flops / took / 1e12)
    return {"rows": [], "tflops": speeds}

"""The table of gpu_day.py, from the answers of its pieces."""

from __future__ import annotations

import decode_rate
import phase_rate
import step_ways
from in_pieces import Answer
from side_by_side import spread

from wenet_osum.train.estimate import Mean

# Dense bfloat16 TFLOP/s by the makers' data sheets; the first name that a device's begins with.
DATA_SHEETS = {
    "NVIDIA H200": 989,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100": 312,
    "NVIDIA L40S": 362,
}
MEASURED = (
    "Measured: wall clock around a synchronized device, medians (quartiles) of rounds in turns; "
    "ratios are taken within a round. Weights are random, of the published models' sizes."
)
COUNTED = (
    "Counted: the share of the peak is the FLOPs of our step (train/estimate.py, nothing that is "
    "computed again) over the time and the data sheet's peak. The baselines' share is of the same "
    "FLOPs, whatever padding they compute besides."
)
REHEARSED = "**A rehearsal on a CPU at tiny sizes: none of these figures says anything of a GPU.**"
TESTS = ["| test | outcome | why |", "|---|---|---|"]


def table(options: dict[str, Answer]) -> Answer:
    """Write the table of the ``answers`` by name; those that are missing are named as such."""
    machine = options["machine"]
    answers = options["answers"]
    peak = options["peak_tflops"]
    if not peak:
        peak = data_sheet(machine["device"])
    lines = head(machine, peak)
    lines.append("")
    lines += tests(answers)
    lines += training(answers, peak)
    lines += ways(answers)
    lines += decoding(answers)
    lines += missing(answers)
    text = "\n".join(lines)
    return {"text": text.rstrip("\n") + "\n"}


def data_sheet(device: str) -> float:
    """Return the peak of a device in TFLOP/s, 0 when it is not known."""
    for name, peak in DATA_SHEETS.items():
        if device.startswith(name):
            return peak
    return 0.0


def head(machine: Answer, peak: float) -> list[str]:
    """Say what was measured where."""
    device = machine["device"]
    lines = [f"## {device}", ""]
    if "rehearsal" in device:
        lines += [REHEARSED, ""]

    facts = [f"{name} {value}" for name, value in machine.items()]
    listed = ", ".join(facts)
    stated = "not known: give --peak_tflops"
    if peak:
        stated = f"{peak:g} TFLOP/s"
    lines.append(f"`bash tools/bench/gpu_day.sh`; {listed}; bfloat16 peak {stated}.")
    return [*lines, "", MEASURED, "", COUNTED]


def tests(answers: dict[str, Answer | None]) -> list[str]:
    """Write what became of each test."""
    rows = rows_of(answers.get("tests"))
    if not rows:
        return []
    lines = []
    for row in rows:
        cells = [row["test"], row["outcome"], row["why"]]
        lines.append(f"| {' | '.join(cells)} |")
    return ["### Tests", "", *TESTS, *lines, ""]


def training(answers: dict[str, Answer | None], peak: float) -> list[str]:
    """Write the rows of the phases."""
    lines = []
    mean = None
    for name, answer in answers.items():
        if name.startswith("rates ") and rows_of(answer):
            mean = Mean(**answer["mean"])
            work = name.removeprefix("rates ")
            lines += phase_rows(work, answer, mean, peak)
    if mean is None:
        return []
    lines = ["### Training", "", about(mean), "", *phase_rate.HEAD, *lines, ""]

    products = answers.get("products") or {}
    if "tflops" in products:
        speed = spread(products["tflops"], ".4g")
        lines.append(f"Matrix products of the device alone: {speed} TFLOP/s.")
        lines.append("")
    return lines


def phase_rows(work: str, answer: Answer, mean: Mean, peak: float) -> list[str]:
    """Write the rows of a phase; ours is the first."""
    found = [phase_rate.Measured(**row) for row in answer["rows"]]
    ours = found[0]
    lines = []
    for one in found:
        line = phase_rate.row(
            work,
            one,
            ours,
            mean.seconds,
            peak,
        )
        lines.append(line)
    return lines


def ways(answers: dict[str, Answer | None]) -> list[str]:
    """Write the rows of parts of a step."""
    rows = rows_of(answers.get("ways"))
    if not rows:
        return []
    found = [step_ways.Measured(**row) for row in rows]
    return ["### Parts of a step", "", *step_ways.HEAD, *step_ways.rows(found), ""]


def decoding(answers: dict[str, Answer | None]) -> list[str]:
    """Write the rows of each size and batch."""
    lines = []
    mean = None
    for name, answer in answers.items():
        if name.startswith("decoding ") and rows_of(answer):
            mean = Mean(**answer["mean"])
            size = name.removeprefix("decoding ")
            lines += decoding_rows(size, answer, mean)
    if mean is None:
        return []
    return ["### Decoding", "", about(mean), "", *decode_rate.HEAD, *lines, ""]


def decoding_rows(size: str, answer: Answer, mean: Mean) -> list[str]:
    """Write the rows of a size; ours is the first of each batch."""
    ours = {}
    lines = []
    for row in answer["rows"]:
        one = decode_rate.Decoded(**row)
        first = ours.setdefault(one.batch, one)
        line = decode_rate.row(size, one, first, mean.seconds)
        lines.append(line)
    return lines


def about(mean: Mean) -> str:
    """Describe the utterances."""
    return (
        f"Utterances of {mean.seconds:g} s with {mean.prompt_tokens} tokens of prompt "
        f"and {mean.answer_tokens} of answer."
    )


def rows_of(answer: Answer | None) -> list[Answer]:
    """Return the rows of an answer, none where there is none."""
    if answer is None:
        return []
    return answer.get("rows", [])


def missing(answers: dict[str, Answer | None]) -> list[str]:
    """Name what failed and what has not been run."""
    lines = []
    for name, answer in answers.items():
        if answer is None:
            lines.append(f"- {name}: not run")
        elif "error" in answer:
            error = answer["error"]
            lines.append(f"- {name}: failed: {error}")
    if not lines:
        return []
    return ["### Missing", "", *lines, ""]

#!/usr/bin/env python3
"""What a GPU has to tell about the toolkit: tests, training rates and decoding speed in one table.

    bash tools/bench/gpu_day.sh --out gpu_day
    bash tools/bench/gpu_day.sh --rehearse --out rehearsal

tests     those marked gpu: the kernel for packed sequences against attention utterance by
          utterance, packed against alone in bfloat16, FSDP2 on one device.
rates     phases 2 to 4 at 7B and 0.5B: audio hours per hour, share of the peak, memory, beside
          transformers + peft with padded batches (phase_rate.py).
ways      parts of a step beside the way they were done before: attention, CTC head, LoRA, compiled
          layers (step_ways.py).
decoding  seconds of audio a second at batch 1, 8, 64, 256, beside transformers' generate
          (decode_rate.py).

Weights are random and of the published models' sizes; nothing is downloaded. A call works for at
most --minutes, and the next one with the same --out goes on. OUT/table.md is written by each.
Exit status: 0 all is done, 1 a piece failed (the next call tries it again), 2 there is no GPU or
OUT is of another machine or commit, 85 the time is over and pieces are left: call again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from in_pieces import (  # noqa: E402
    Answer,
    Piece,
    answer_of,
    in_own_process,
    keep,
    preload,
    run_pieces,
)

from wenet_osum.files import write_text  # noqa: E402

PARTS = ("tests", "rates", "ways", "decoding")
SIZES = ("7b", "0.5b")
PHASES = ("3", "2", "4")
WRONG = 2
# Imported once for all pieces; none of them touches a device.
PRELOAD = ["gpu_work", "gpu_table"]


def plan(parts: list[str], options: dict[str, object]) -> list[Piece]:
    """Return the pieces of the parts, in the order of the parts."""
    found = []
    if "tests" in parts:
        found.append(Piece("tests", "gpu_work.tests", options, 240))
    if "rates" in parts:
        found.append(Piece("products", "gpu_work.products", options, 120))
        for size in SIZES:
            for phase in PHASES:
                asked = options | {"size": size, "phase": phase}
                found.append(Piece(f"rates {size} phase {phase}", "gpu_work.rates", asked, 270))
    if "ways" in parts:
        found.append(Piece("ways", "gpu_work.ways", options, 270))
    if "decoding" in parts:
        for size in SIZES:
            asked = options | {"size": size}
            found.append(Piece(f"decoding {size}", "gpu_work.decoding", asked, 270))
    return found


def machine(folder: Path, options: dict[str, object]) -> Answer:
    """Describe the machine, the same in every call of a folder.

    Raises ValueError where there is no GPU and no rehearsal, and for a folder of another machine.
    """
    # The first process waits for the imports.
    piece = Piece("machine", "gpu_work.machine", options, 600)
    found = in_own_process(piece, folder, piece.limit_s)
    if "error" in found:
        raise ValueError(found["error"])

    known = answer_of(piece, folder)
    if known is None:
        keep(piece, folder, found)
        return found
    for name, value in found.items():
        if known.get(name) != value:
            raise ValueError(
                f"{folder} is of {name} {known.get(name)!r}, this call of {value!r}: "
                "figures of the two do not stand in one table; give another --out"
            )
    return known


def main(argv: list[str] | None = None) -> int:
    """Run what is left within the time of a call, and write the table."""
    args = parser().parse_args(argv)
    out = Path(args.out)
    folder = out / "pieces"
    common = {"rehearse": args.rehearse, "commit": args.commit}
    measured = {"rehearse": args.rehearse}
    pieces = plan(args.parts, measured)
    if args.rehearse:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    preload(PRELOAD)
    try:
        described = machine(folder, common)
    except ValueError as error:
        print(error, file=sys.stderr)
        return WRONG

    status = run_pieces(pieces, folder, 60 * args.minutes)
    write_table(out, described, plan([*PARTS], measured), args.peak_tflops)
    return status


def write_table(out: Path, described: Answer, pieces: list[Piece], peak_tflops: float) -> None:
    """Write the table of what is answered so far. Raises RuntimeError when it cannot be made."""
    folder = out / "pieces"
    answers = {}
    for piece in pieces:
        answers[piece.name] = answer_of(piece, folder)
    told = {"machine": described, "answers": answers, "peak_tflops": peak_tflops}
    found = in_own_process(Piece("table", "gpu_table.table", told), folder, 60)
    if "error" in found:
        raise RuntimeError(found["error"])
    path = out / "table.md"
    write_text(path, found["text"])
    print(f"table: {path}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--out", required=True, help="folder of answers and table")
    known.add_argument(
        "--parts", type=_parts, default=[*PARTS], help=f"of {','.join(PARTS)}, with commas"
    )
    known.add_argument("--minutes", type=_minutes, default=9.0, help="of this call")
    known.add_argument(
        "--rehearse", action="store_true", help="the same on a CPU at tiny sizes: that it runs"
    )
    known.add_argument(
        "--peak_tflops",
        type=float,
        default=0.0,
        help="of the GPU in bfloat16, by its data sheet; default: what is known of its name",
    )
    known.add_argument("--commit", default="", help="of the code, where there is no git checkout")
    return known


def _parts(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            known = ", ".join(PARTS)
            raise argparse.ArgumentTypeError(f"no part {name!r}; there are {known}")
    return names


def _minutes(text: str) -> float:
    minutes = float(text)
    if minutes <= 0:
        raise argparse.ArgumentTypeError(f"{text} minutes; give more than 0")
    return minutes


if __name__ == "__main__":
    sys.exit(main())

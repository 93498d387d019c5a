"""Count what phases cost before they run: what trains, FLOPs, memory per device, speed.

All of it is counted on the meta device from the configurations and the sizes in config.json of the
models they name; no weights are read. A phase that begins from another's folder (init_from) that is
not there yet takes the sizes, the adapter and LoRA of the --config before it. --dry_run also takes
a true step with made-up weights.

examples:
  wenet_osum estimate --config conf/train_1_whisper.yaml conf/train_2_adapter.yaml \\
    conf/train_3_encoder.yaml conf/train_4_lora.yaml
  wenet_osum estimate --config conf/train_4_lora.yaml --whisper models/whisper --llm models/llm \\
    --devices 8 --memory_gib 80 --hours 50000
  wenet_osum estimate --config conf/train_4_lora.yaml --whisper models/whisper --llm models/llm \\
    --dry_run --layers 2

exit status:
  0 done; 1 a model or a dry run is faulty; 2 a fault of the configuration;
  3 a phase does not fit into --memory_gib
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from wenet_osum import config, lookup
from wenet_osum.bin._arguments import add_override, new_parser

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from wenet_osum.train.dry_run import DryRun
    from wenet_osum.train.estimate import Estimate, Mean

# Share of a device that counted memory may take; the rest is for the allocator and for what is not
# counted.
ROOM = 0.8
TERA = 1e12
GIB = 2**30


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("estimate", __doc__)
    add = parser.add_argument
    add(
        "--config",
        nargs="+",
        required=True,
        help="yaml of one phase or of several, in their order",
    )
    add(
        "--whisper",
        help="folder or hub name whose config.json gives the sizes; default: as the "
        "configuration names it",
    )
    add("--llm", help="the same for the LLM")
    add_override(parser, "of every phase, e.g. batch.max_frames=6000")
    _add_figures(parser)
    add(
        "--dry_run",
        action="store_true",
        help="also one true step on this machine with made-up weights, a save and a load",
    )
    add(
        "--layers",
        type=int,
        default=2,
        help="layers per stack in the dry run; 0: all",
    )
    add(
        "--trial",
        action=lookup.RenamedOption,
        const="write --dry_run",
        help=argparse.SUPPRESS,
    )
    return parser.parse_args(argv)


def _add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe the data and the machine."""
    add = parser.add_argument
    add("--seconds", type=float, default=8.0, help="audio of the mean utterance, s")
    add("--prompt_tokens", type=int, default=20, help="of the mean utterance")
    add(
        "--answer_tokens",
        type=int,
        default=40,
        help="of the mean utterance, end of text included",
    )
    add("--devices", type=int, default=1, help="accelerators")
    add(
        "--memory_gib",
        type=float,
        help="memory of one; the command fails when a phase counts more than four fifths of it",
    )
    add(
        "--peak_tflops",
        type=float,
        default=989.0,
        help="of one, in bfloat16; 989 is the datasheet's of an H100 or H200",
    )
    add("--utilization", type=float, default=0.4, help="share of the peak that is reached")
    add("--hours", type=float, help="audio to train on, h; says how long that takes")


def main(argv: list[str] | None = None) -> int:
    """Count every phase and print it. Returns the exit status."""
    args = parse(argv)
    try:
        confs = [config.load(path, config.TrainConfig, args.override) for path in args.config]
    except config.ConfigError as error:
        return _fault(error, 2)
    try:
        return run(args, confs)
    except (ValueError, OSError) as error:
        return _fault(error, 1)


def run(args: argparse.Namespace, confs: list[config.TrainConfig]) -> int:
    """Print each phase; returns the exit status.

    Raises ValueError for what cannot be counted.
    """
    from wenet_osum.train.estimate import Mean, estimate
    from wenet_osum.train.inherited import inherited

    mean = Mean(args.seconds, args.prompt_tokens, args.answer_tokens)
    names = {"whisper": args.whisper, "llm": args.llm}
    status = 0
    before = None
    for path, conf in zip(args.config, confs, strict=True):
        sizes = _sizes(path, conf, names, args)
        conf.model = before = inherited(conf.model, before)
        found = estimate(conf, *sizes, mean, args.devices)
        print(f"{path}\n{found.table}\n{describe(found, args)}\n", flush=True)
        if not _fits(found, args.memory_gib, path):
            status = 3
        if args.dry_run and not _try(path, conf, sizes, mean, args.layers or None):
            return 1
    return status


def _fits(found: Estimate, memory_gib: float | None, path: str) -> bool:
    """Return whether a phase fits into a device's memory, where that is given; prints advice where
    it does not."""
    if not memory_gib or found.total / GIB <= ROOM * memory_gib:
        return True
    print(
        f"estimate: {path} takes more than {ROOM:.0%} of {memory_gib:g} GiB; lower "
        "batch.max_frames and batch.max_tokens, or set checkpointing: true, or engine: fsdp",
        file=sys.stderr,
    )
    return False


def _sizes(
    path: str, conf: config.TrainConfig, names: dict[str, str | None], args: argparse.Namespace
) -> tuple[PreTrainedConfig, PreTrainedConfig | None]:
    """Return the configurations of Whisper and LLM, None for the LLM of phase 1.

    ``names`` says where they come from, and keeps it for the phases that follow. Raises ValueError
    when nothing names them.
    """
    from wenet_osum.train.inherited import is_there, sizes_of

    model = conf.model
    is_whisper = model.kind == "whisper"
    begun = model.init_from
    if begun and is_there(begun):
        whole = sizes_of(begun)
        return (whole, None) if is_whisper else (whole.encoder, whole.llm)

    # What the command line names holds for all; else a phase's own names, and those of the phase
    # before where it has none.
    names["whisper"] = args.whisper or model.encoder_source or names["whisper"]
    names["llm"] = args.llm or model.llm or names["llm"]
    needed = ["whisper"] if is_whisper else ["whisper", "llm"]
    missing = [f"--{part}" for part in needed if not names[part]]
    if missing:
        options = " and ".join(missing)
        raise ValueError(
            f"{path} begins from {begun}, which is not there; "
            f"give the confs before it, or {options}"
        )
    whisper = sizes_of(names["whisper"])
    llm = None if is_whisper else sizes_of(names["llm"])
    return whisper, llm


def describe(found: Estimate, args: argparse.Namespace) -> str:
    """Write the counted figures as lines."""
    mean = found.mean
    count = found.utterances
    positions = count * found.positions
    answer_tokens = count * mean.answer_tokens
    flops = found.flops / count / TERA
    recomputed = found.recomputed / count / TERA
    rows = [
        f"micro-batch: {count} utterances of {mean.seconds:g} s, {positions} LLM positions, "
        f"{answer_tokens} answer tokens",
        f"FLOPs per utterance (counted): {flops:.3f} T, and {recomputed:.3f} T recomputed",
        "memory per device (counted), GiB:",
    ]
    for name, size in found.memory.items():
        rows.append(f"  {size / GIB:8.2f}  {name}")
    rows.append(f"  {found.total / GIB:8.2f}  together")

    rate = found.audio_rate(args.utilization * args.peak_tflops * TERA)
    reached = f"{args.utilization:.0%} of {args.peak_tflops:g} TFLOP/s"
    rows.append(f"audio hours per hour and device at {reached} (counted): {rate:.0f}")
    if args.hours:
        hours = args.hours / (rate * args.devices)
        audio = f"{args.hours:g} h of audio on {args.devices} devices"
        rows.append(f"{audio}: {hours:.1f} h (counted)")
    return "\n".join(rows)


def _try(path: str, conf: config.TrainConfig, sizes: tuple, mean: Mean, layers: int | None) -> bool:
    """Take a step with made-up weights, save and load, and print how that went; False when it
    failed."""
    from transformers.utils import logging

    from wenet_osum.train.dry_run import dry_run

    logging.disable_progress_bar()
    found = dry_run(conf, *sizes, mean, layers=layers)
    print(_dry_run_line(found, layers), flush=True)
    if not found.passed:
        print(f"estimate: the dry run of {path} failed", file=sys.stderr)
    return found.passed


def _dry_run_line(found: DryRun, layers: int | None) -> str:
    """Describe a dry run in one line, with an empty one after it."""
    back = "every tensor came back the same"
    if found.differences:
        count = len(found.differences)
        back = f"{count} tensors differ, e.g. {found.differences[0]}"
    return (
        f"dry run, {layers or 'all'} layers per stack: loss {found.loss:.2f}, "
        f"{found.moved} of {found.trained} trained tensors changed, saved and loaded: {back}; "
        f"step {found.seconds:.1f} s, peak {found.peak_gib:.2f} GiB\n"
    )


def _fault(error: Exception, status: int) -> int:
    """Print a fault as a sentence; returns ``status``."""
    print(f"estimate: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

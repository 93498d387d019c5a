"""Say what phases will cost before they run: what trains, FLOPs, memory a device, audio hours an hour.

All of it is counted on the meta device from the configurations and the sizes in config.json of the models they name; no weights are read. A
phase that begins from another's folder (init_from), not there yet, takes the sizes of the --config before it. --dry_run also takes a true step
with made-up weights.

examples:
  wenet_osum estimate --config conf/train_1_whisper.yaml conf/train_2_adapter.yaml conf/train_3_encoder.yaml conf/train_4_lora.yaml
  wenet_osum estimate --config conf/train_4_lora.yaml --whisper models/whisper --llm models/llm --devices 8 --memory_gib 80 --hours 50000
  wenet_osum estimate --config conf/train_4_lora.yaml --whisper models/whisper --llm models/llm --dry_run --layers 2

exit status:
  0 done; 1 a model or a dry run is faulty; 2 a fault of the configuration; 3 a phase does not fit into --memory_gib
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wenet_osum import config, lookup

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from wenet_osum.train.estimate import Estimate, Mean

ROOM = 0.8  # share of a device that counted memory may take; the rest is the allocator's and what is not counted


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="wenet_osum estimate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", required=True, help="yaml of one phase or of several, in their order")
    parser.add_argument("--whisper", help="folder or hub name whose config.json gives the sizes; default: as the configuration names it")
    parser.add_argument("--llm", help="the same for the LLM")
    parser.add_argument("--override", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="of every phase, e.g. batch.max_frames=6000")
    parser.add_argument("--seconds", type=float, default=8.0, help="audio of the mean utterance, s")
    parser.add_argument("--prompt_tokens", type=int, default=20, help="of the mean utterance")
    parser.add_argument("--answer_tokens", type=int, default=40, help="of the mean utterance, end of text included")
    parser.add_argument("--devices", type=int, default=1, help="accelerators")
    parser.add_argument("--memory_gib", type=float, help="memory of one; the command fails when a phase counts more than four fifths of it")
    parser.add_argument("--peak_tflops", type=float, default=989.0, help="of one, in bfloat16; 989 is the datasheet's of an H100 or H200")
    parser.add_argument("--utilization", type=float, default=0.4, help="share of the peak that is reached")
    parser.add_argument("--hours", type=float, help="audio to train on, h; says how long that takes")
    parser.add_argument("--dry_run", action="store_true", help="also one true step on this machine with made-up weights, a save and a load")
    parser.add_argument("--layers", type=int, default=2, help="layers a stack in the dry run; 0: all")
    parser.add_argument("--trial", action=lookup.RenamedOption, const="write --dry_run", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


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
    """Print each phase; 3 when one does not fit. Raises ValueError for what cannot be counted."""
    from wenet_osum.train.estimate import Mean, estimate

    mean, status, names = Mean(args.seconds, args.prompt_tokens, args.answer_tokens), 0, {"whisper": args.whisper, "llm": args.llm}
    for path, conf in zip(args.config, confs, strict=True):
        sizes = _sizes(path, conf, names)
        found = estimate(conf, *sizes, mean, args.devices)
        print(f"{path}\n{found.table}\n{describe(found, args)}\n", flush=True)
        if args.memory_gib and found.total / 2**30 > ROOM * args.memory_gib:
            print(f"estimate: {path} takes more than {ROOM:.0%} of {args.memory_gib:g} GiB; lower batch.max_frames and batch.max_tokens, or set "
                  "checkpointing: true, or engine: fsdp", file=sys.stderr)  # fmt: skip
            status = 3
        if args.dry_run and not _try(path, conf, sizes, mean, args.layers or None):
            return 1
    return status


def _sizes(path: str, conf: config.TrainConfig, names: dict[str, str | None]) -> tuple[PreTrainedConfig, PreTrainedConfig | None]:
    """Configurations of Whisper and LLM; ``names`` keeps them for the phases that follow. Raises ValueError when nothing names them."""
    from wenet_osum.train.estimate import sizes_of

    begun = conf.model.init_from
    if begun and (Path(begun) / "config.json").exists():
        whole = sizes_of(begun)
        return (whole, None) if conf.model.kind == "whisper" else (whole.encoder, whole.llm)
    names["whisper"] = names["whisper"] or conf.model.encoder_source
    names["llm"] = names["llm"] or conf.model.llm
    needed = ["whisper"] if conf.model.kind == "whisper" else ["whisper", "llm"]
    missing = [f"--{part}" for part in needed if not names[part]]
    if missing:
        raise ValueError(f"{path} begins from {begun}, which is not there; give the confs before it, or {' and '.join(missing)}")
    found = [sizes_of(names[part]) for part in needed]
    return (found[0], None) if len(found) == 1 else (found[0], found[1])


def describe(found: Estimate, args: argparse.Namespace) -> str:
    """The counted figures as lines."""
    tera, count, mean = 1e12, found.utterances, found.mean
    rows = [
        f"micro-batch: {count} utterances of {mean.seconds:g} s, {count * found.positions} LLM positions, {count * mean.answer_tokens} answer tokens",
        f"FLOPs an utterance (counted): {found.flops / count / tera:.3f} T, and {found.recomputed / count / tera:.3f} T recomputed",
        "memory a device (counted), GiB:",
        *(f"  {size / 2**30:8.2f}  {name}" for name, size in found.memory.items()),
        f"  {found.total / 2**30:8.2f}  together",
    ]
    rate = found.audio_rate(args.utilization * args.peak_tflops * tera)
    rows.append(f"audio hours an hour and device at {args.utilization:.0%} of {args.peak_tflops:g} TFLOP/s (counted): {rate:.0f}")
    if args.hours:
        rows.append(f"{args.hours:g} h of audio on {args.devices} devices: {args.hours / (rate * args.devices):.1f} h (counted)")
    return "\n".join(rows)


def _try(path: str, conf: config.TrainConfig, sizes: tuple, mean: Mean, layers: int | None) -> bool:
    from transformers.utils import logging

    from wenet_osum.train.dry_run import dry_run

    logging.disable_progress_bar()
    found = dry_run(conf, *sizes, mean, layers=layers)
    back = f"{len(found.differences)} tensors differ, e.g. {found.differences[0]}" if found.differences else "every tensor came back the same"
    print(
        f"dry run, {layers or 'all'} layers a stack: loss {found.loss:.2f}, {found.moved} of {found.trained} trained tensors changed, saved and loaded: "
        f"{back}; step {found.seconds:.1f} s, peak {found.peak_gib:.2f} GiB\n",
        flush=True,
    )
    if not found.passed:
        print(f"estimate: the dry run of {path} failed", file=sys.stderr)
    return found.passed


def _fault(error: Exception, status: int) -> int:
    print(f"estimate: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

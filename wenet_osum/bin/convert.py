"""Convert checkpoints of OSUM, WeNet and openai-whisper to model folders, and Whisper to .pt files.

--osum: a published OSUM, to decode with or to go on training from (model.init_from)
--whisper_pt: a Whisper of WeNet or openai-whisper (either is recognized), to start from
  (model.whisper)
--to_wenet_pt, --to_whisper_pt: a Whisper folder, such as phase 1 leaves, as a .pt file for those
  two toolkits

examples:
  wenet_osum convert --osum infer.pt --llm Qwen/Qwen2-7B --prompts prompt_config.yaml --out exp/osum
  wenet_osum convert --whisper_pt medium.pt --tokenizer openai/whisper-medium --out exp/whisper
  wenet_osum convert --to_wenet_pt exp/1_whisper/final --out final.pt

exit status:
  0 done, 1 the checkpoint cannot be read or does not fit, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import sys

from wenet_osum.bin._arguments import new_parser

# Direction → options it knows.
FITTING = {
    "osum": {"llm", "prompts", "heads", "adapter_heads", "lora_alpha", "shard_gib"},
    "whisper_pt": {"tokenizer", "heads", "shard_gib"},
    "to_wenet_pt": set(),
    "to_whisper_pt": set(),
}
# Options that are numbers above 0.
NUMBERS = ("heads", "adapter_heads", "lora_alpha", "shard_gib")


def main(argv: list[str] | None = None) -> int:
    """Convert one checkpoint and print what was done. Returns the exit status."""
    args = parse(argv)
    try:
        lines = convert(args)
    except (ValueError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the command when options do not belong together."""
    parser = new_parser("convert", __doc__)
    _add_directions(parser)
    add = parser.add_argument
    add(
        "--out",
        required=True,
        help="folder to write (a .pt file with --to_…); must not exist yet",
    )
    add(
        "--llm",
        help="with --osum: folder or hub name of the LLM it was trained on; "
        "configuration and tokenizer are read",
    )
    add(
        "--prompts",
        help="with --osum: its prompt_config.yaml, {task tags: [sentence, …]}; kept in the folder",
    )
    add(
        "--tokenizer",
        help="with --whisper_pt: Whisper folder or hub name whose tokenizer goes along",
    )
    add(
        "--heads",
        type=int,
        help="attention heads of the Whisper, where the file does not say (default: width / 64)",
    )
    add(
        "--adapter_heads",
        type=int,
        help="with --osum: attention heads of the adapter (default: 4, as published)",
    )
    add(
        "--lora_alpha",
        type=float,
        help="with --osum: alpha of the LoRA adapters (default: 32, as published)",
    )
    add("--shard_gib", type=float, help="largest weight file to write, GiB (default: 2)")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _add_directions(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes what, of which one is given."""
    source = parser.add_mutually_exclusive_group(required=True)
    add = source.add_argument
    add(
        "--osum",
        metavar="PT",
        help="published OSUM checkpoint, plain or as DeepSpeed saves it, with LoRA or without; "
        "needs --llm",
    )
    add("--whisper_pt", metavar="PT", help="Whisper checkpoint of WeNet or openai-whisper")
    add(
        "--to_wenet_pt",
        metavar="DIR",
        help="Whisper folder or hub name, to be written as WeNet's .pt",
    )
    add(
        "--to_whisper_pt",
        metavar="DIR",
        help="Whisper folder or hub name, to be written as openai-whisper's .pt",
    )


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command with its usage when options do not belong together."""
    given = {name for name, value in vars(args).items() if value is not None}
    given.remove("out")
    [direction] = given & FITTING.keys()
    misplaced = given - {direction} - FITTING[direction]
    if misplaced:
        flags = ", ".join(f"--{name}" for name in sorted(misplaced))
        parser.error(f"{flags} cannot go with --{direction}")
    if direction == "osum" and not args.llm:
        parser.error(
            "--osum needs --llm, the LLM that the checkpoint was trained on, e.g. Qwen/Qwen2-7B"
        )
    for name in NUMBERS:
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name} {value} must be above 0")


def convert(args: argparse.Namespace) -> list[str]:
    """Do what the arguments ask; returns lines to print.

    Raises ValueError and OSError for a checkpoint that cannot be read or does not fit.
    """
    folder = args.to_wenet_pt or args.to_whisper_pt
    if folder:
        from wenet_osum.models.convert_whisper import to_pt

        toolkit = "wenet" if args.to_wenet_pt else "openai"
        return to_pt(folder, args.out, toolkit)

    # What is not given is left to the functions' own defaults.
    given = {}
    for name in ("heads", "adapter_heads", "lora_alpha"):
        value = getattr(args, name)
        if value is not None:
            given[name] = value
    if args.shard_gib:
        given["shard_bytes"] = int(args.shard_gib * 1024**3)

    if args.whisper_pt:
        from wenet_osum.models.convert_whisper import from_pt

        return from_pt(args.whisper_pt, args.out, args.tokenizer, **given)
    from wenet_osum.models.convert_osum import from_osum

    return from_osum(args.osum, args.llm, args.out, args.prompts, **given)


if __name__ == "__main__":
    sys.exit(main())

"""Ask an Instruct LLM to repeat transcripts given as text, in the layout of template: chat.

Does for an LLM alone what training does before its first step: an LLM that does not repeat text in
the place of speech cannot transcribe speech. Prints the key, errors, transcript and answer of each
utterance, separated by tabs, to stdout and the error rate to stderr.

examples:
  wenet_osum repeat_gate --llm Qwen/Qwen2.5-0.5B-Instruct --list data/dev/asr.list --lowercase
  wenet_osum repeat_gate --llm models/llm --list dev.jsonl --prompt "Say again:" --utterances 100

exit status:
  0 the LLM repeats them, 1 a fault of LLM or list, 2 a fault of the arguments,
  3 its error rate is above --max_wer
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from wenet_osum.bin._arguments import new_parser
from wenet_osum.config import RepeatGateConfig

if TYPE_CHECKING:
    from wenet_osum.text.template import Template
    from wenet_osum.train.repeat_gate import Repetition


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    default = RepeatGateConfig()
    parser = new_parser("repeat_gate", __doc__)
    add = parser.add_argument
    add("--llm", required=True, help="folder or hub name of an Instruct LLM")
    add("--list", required=True, help="list of shards, or a raw list")
    add("--system", help="system message; default: what the chat template writes")
    add("--prompt", default=default.prompt, help="default: %(default)s")
    add("--utterances", type=int, default=default.utterances, help="transcripts")
    add("--max_wer", type=float, default=default.max_wer, help="in percent")
    add("--lowercase", action="store_true", help="lower-case the transcripts")
    add("--threads", type=int, default=1, help="torch threads, CPU")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Ask, print, judge. Returns the exit status."""
    args = parse(argv)
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f"repeat_gate: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    """Print what the LLM answers, and judge it; returns the exit status.

    Raises ValueError for a faulty LLM or list.
    """
    import torch
    from transformers.utils import logging

    from wenet_osum.text.template import Template
    from wenet_osum.text.tokenizer import load_tokenizer

    # Its bars would tear the answers.
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer(args.llm)
    template = Template(
        tokenizer,
        lowercase=args.lowercase,
        template="chat",
        system=args.system,
    )
    found = ask(args, template)
    for line in found.lines():
        print(line)
    print(found, file=sys.stderr)
    try:
        found.check(args.max_wer)
    except ValueError as error:
        print(f"repeat_gate: {error}", file=sys.stderr)
        return 3
    return 0


def ask(args: argparse.Namespace, template: Template) -> Repetition:
    """Let the LLM repeat transcripts of the list.

    Raises ValueError for a list without any, or a faulty LLM.
    """
    import torch

    from wenet_osum.models.llm import causal
    from wenet_osum.train import repeat_gate

    utterances = repeat_gate.with_transcripts([args.list], template, args.utterances)
    if not utterances:
        raise ValueError(f"{args.list} has no utterance with a transcript; give another list")

    llm = causal.read(args.llm)
    llm.eval()
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        llm.to(device)
    boundary = repeat_gate.boundary_of(llm, template)
    return repeat_gate.repeat(llm, boundary, template, utterances, args.prompt)


if __name__ == "__main__":
    sys.exit(main())

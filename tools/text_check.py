#!/usr/bin/env python3
"""Whether a trained model still answers text as its LLM did before.

    python tools/text_check.py --model exp/3_joint/final
    python tools/text_check.py --model exp/4_llm/final --llm Qwen/Qwen2.5-0.5B-Instruct \\
        --out exp/4_llm/text

The prompts, a line each (default: a hundred, half of them Chinese), are asked in the LLM's own chat
template, with LoRA and without it, greedily. Told are the share of replies that are the same, the
perplexity of the text LLM's replies as the trained LLM sees them, and the divergence of its next
token. --out gets the figures and all replies. Exit status: 0 done, 1 a fault, 3 when the perplexity
has grown more than --max_growth times.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.decode.text_kept import Kept, Reply, compare, of_model  # noqa: E402
from wenet_osum.decode.text_replies import TextLlm  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.models import build  # noqa: E402
from wenet_osum.models.osum import OsumModel  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

PROMPTS = Path(__file__).with_name("text_prompts.txt")
FORGOT = 3  # exit status


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        kept, replies = _compare(args)
    except (ValueError, OSError) as error:
        print(f"text_check.py: {error}", file=sys.stderr)
        return 1

    print(table(kept))
    if args.out:
        _write(args.out, kept, replies)
    # A perplexity that is no number has not stayed either.
    if args.max_growth is not None and not kept.growth <= args.max_growth:
        told = f"the perplexity has grown {kept.growth:.2f} times"
        print(f"text_check.py: {told}, more than {args.max_growth:g}", file=sys.stderr)
        return FORGOT
    return 0


def _compare(args: argparse.Namespace) -> tuple[Kept, list[Reply]]:
    """Ask both LLMs all prompts."""
    dtype = getattr(torch, args.dtype)
    model = build.load(args.model, dtype)
    if not isinstance(model, OsumModel):
        raise ValueError(f"{args.model}: phase 1 has no LLM")
    template = Template.load(args.model)
    before = None
    if args.llm:
        before = TextLlm.load(args.llm, "", args.max_tokens, dtype)
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        model.to(device)
    after = of_model(model, template.tokenizer, args.max_tokens)
    prompts = read_prompts(args.prompts)
    return compare(after, prompts, before, args.batch_size)


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a file that are not empty. Raises ValueError when there is none."""
    text = path.read_text(encoding="utf-8")
    prompts = []
    for line in text.splitlines():
        prompt = line.strip()
        if prompt:
            prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path}: no prompts")
    return prompts


def table(kept: Kept) -> str:
    """Write the figures as a markdown table."""
    rows = {
        "prompts": f"{kept.prompts}",
        "replies that are the same": f"{kept.exact:.1f} %",
        "perplexity of the text LLM's replies, before": f"{kept.perplexity_before:.3f}",
        "perplexity of the text LLM's replies, now": f"{kept.perplexity:.3f}",
        "divergence of the next token, nats": f"{kept.kl:.4f}",
    }
    lines = ["| text | |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value} |")
    return "\n".join(lines)


def _write(folder: Path, kept: Kept, replies: list[Reply]) -> None:
    """Write the figures, and a line of JSON for each prompt with both replies."""
    figures = kept._asdict()
    text = json.dumps(figures, indent=1)
    write_text(folder / "text.json", f"{text}\n")

    lines = []
    for reply in replies:
        row = reply._asdict()
        line = json.dumps(row, ensure_ascii=False)
        lines.append(f"{line}\n")
    text = "".join(lines)
    write_text(folder / "replies.jsonl", text)


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = args.add_argument
    add("--model", required=True, help="folder of a trained model")
    add("--llm", help="text LLM to compare with; default: the model's own without LoRA")
    add("--prompts", type=Path, default=PROMPTS, help="a prompt per line; default: a hundred")
    add("--max_tokens", type=int, default=40, help="of a reply")
    add("--batch_size", type=int, default=16, help="prompts asked at once")
    add("--max_growth", type=float, help="of the perplexity, times, e.g. 1.1")
    add("--threads", type=int, default=1, help="torch threads")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--out", type=Path, help="folder for text.json and replies.jsonl")
    return args


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Choose the tokens of an LLM that are the classes of CTC, from the transcripts of training lists.

    python tools/make_ctc_classes.py --tokenizer Qwen/Qwen2.5-0.5B-Instruct \\
        --list data/train.list --check data/dev.list --out data/ctc_classes.json

The file is what ``classes`` of the loss ctc takes. Every transcript of --list can be written with
the classes; for lists of --check the tool says how many cannot, and which characters are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.bin._references import read_references  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.text import ctc_classes  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402
from wenet_osum.text.tokenizer import load_tokenizer  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        _choose(args)
    except (ValueError, OSError) as error:
        print(f"make_ctc_classes.py: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--tokenizer", required=True, help="folder or hub name of the LLM")
    args.add_argument(
        "--list",
        "--manifest",
        action="append",
        required=True,
        metavar="LIST",
        help="training list, a manifest or data.list; may be repeated",
    )
    args.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="LIST",
        help="another list, whose transcripts are only looked at; may be repeated",
    )
    args.add_argument("--size", type=int, default=1000, help="most classes")
    args.add_argument(
        "--lowercase", action="store_true", help="as lowercase: true of the training yaml"
    )
    args.add_argument("--out", required=True, help="JSON file to write")
    return args


def _choose(args: argparse.Namespace) -> None:
    """Choose the classes, write them, and tell what of each list can be written with them."""
    tokenizer = load_tokenizer(args.tokenizer)
    template = Template(tokenizer, lowercase=args.lowercase)
    texts = {}
    for path in [*args.list, *args.check]:
        if path not in texts:
            texts[path] = _texts(template, path)

    learned_from = itertools.chain.from_iterable(texts[path] for path in args.list)
    chosen = ctc_classes.learn(tokenizer, learned_from, args.size)
    page = json.dumps(chosen, ensure_ascii=False, indent=0)
    write_text(args.out, page + "\n")
    print(f"{args.out}: {len(chosen)} classes")

    # The coverage is that of the classes as training will read them.
    classes = ctc_classes.read(tokenizer, args.out)
    encoder = ctc_classes.ClassEncoder(tokenizer, classes)
    for path, known in texts.items():
        print(f"{path}: {ctc_classes.coverage(tokenizer, encoder, known)}")


def _texts(template: Template, path: str) -> list[str]:
    """Return the transcripts of a list as training would write them; empty ones are passed over."""
    texts = [template.transcript_text(row.utterance) for row in read_references(path)]
    return [text for text in texts if text]


if __name__ == "__main__":
    sys.exit(main())

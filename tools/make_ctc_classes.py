#!/usr/bin/env python3
"""Choose the tokens of an LLM that are the classes of CTC, from the transcripts of training lists.

    python tools/make_ctc_classes.py --tokenizer Qwen/Qwen2.5-0.5B-Instruct --list data/train.list --check data/dev.list --out data/ctc_classes.json

The file is what ``classes`` of the loss ctc takes. Every transcript of --list can be written with
the classes; for lists of --check the tool says how many cannot, and which characters are missing.
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder or hub name of the LLM")
    parser.add_argument("--list", "--manifest", action="append", required=True, metavar="LIST", help="training list, a manifest or data.list; may be repeated")
    parser.add_argument("--check", action="append", default=[], metavar="LIST", help="another list, whose transcripts are only looked at; may be repeated")
    parser.add_argument("--size", type=int, default=1000, help="most classes")
    parser.add_argument("--lowercase", action="store_true", help="as lowercase: true of the training yaml")
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    try:
        template = Template(load_tokenizer(args.tokenizer), lowercase=args.lowercase)
        texts = {path: _texts(template, path) for path in dict.fromkeys([*args.list, *args.check])}
        chosen = ctc_classes.learn(template.tokenizer, (text for path in args.list for text in texts[path]), args.size)
        write_text(args.out, json.dumps(chosen, ensure_ascii=False, indent=0) + "\n")
        encoder = ctc_classes.ClassEncoder(template.tokenizer, ctc_classes.read(template.tokenizer, args.out))
        print(f"{args.out}: {len(chosen)} classes")
        for path, known in texts.items():
            print(f"{path}: {ctc_classes.coverage(template.tokenizer, encoder, known)}")
    except (ValueError, OSError) as error:
        print(f"make_ctc_classes.py: {error}", file=sys.stderr)
        return 1
    return 0


def _texts(template: Template, path: str) -> list[str]:
    return [text for row in read_references(path) if (text := template.transcript_text(row.utterance))]


if __name__ == "__main__":
    sys.exit(main())

"""Make the models of a recipe that trains from scratch: tokenizer, Whisper and LLM, all small.

The tokenizer is trained on the recipe's text, the LLM on its manifest as pseudo-speech. Under
torchrun all processes train the LLM; the result is the same but for rounding.

examples:
  wenet_osum make_models --text data/train.txt --manifest data/train/manifest.jsonl \\
    --conf conf/models.yaml --out exp/init
  torchrun --standalone --nproc_per_node 2 -m wenet_osum.bin.make_models \\
    --text data/train.txt --manifest data/train/manifest.jsonl \\
    --conf conf/models.yaml --out exp/init

exit status:
  0 done, 1 a fault of the files, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers.utils import logging

from wenet_osum import config
from wenet_osum.bin._arguments import add_override, new_parser
from wenet_osum.bin._exit import fault, leave
from wenet_osum.small.make_models import make_models
from wenet_osum.small.models import SmallModels


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("make_models", __doc__)
    add = parser.add_argument
    add(
        "--text",
        required=True,
        help="training text, one sentence per line; test sentences must not be in it",
    )
    add(
        "--manifest",
        required=True,
        help="training manifest; from it the LLM learns its tasks as pseudo-speech "
        "(small/pseudo_speech.py)",
    )
    add("--conf", required=True, help="yaml with the sizes (small/models.py)")
    add("--out", required=True, help="folder to write whisper/ and llm/ into")
    add_override(parser, "e.g. llm.epochs=2")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write ``OUT/whisper`` and ``OUT/llm``, ordinary transformers folders.

    Returns the exit status.
    """
    args = parse(argv)
    try:
        conf = config.load(args.conf, SmallModels, args.override)
        logging.disable_progress_bar()
        make_models(args.text, args.manifest, conf, Path(args.out))
    except config.ConfigError as error:
        return fault("make_models", error, 2)
    except (ValueError, OSError) as error:
        return fault("make_models", error, 1)
    return 0


if __name__ == "__main__":
    leave(main())

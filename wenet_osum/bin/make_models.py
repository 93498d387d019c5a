"""Stage 2 of recipes that train from scratch: a tokenizer, a Whisper-shaped model, and an LLM trained on the recipe's text.

examples:
  wenet_osum make_models --text data/train.txt --manifest data/train/manifest.jsonl --conf conf/models.yaml --out exp/init

exit status:
  0 done, 1 a fault of the files, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from transformers.utils import logging

from wenet_osum import config, tasks
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.models.small import SmallModels, save_whisper, small_llm
from wenet_osum.text.template import Template
from wenet_osum.text.train_tokenizer import train_tokenizer
from wenet_osum.text.written import Writer
from wenet_osum.train.text_lm import train_text_lm


def main(argv: list[str] | None = None) -> int:
    """Write ``OUT/whisper`` and ``OUT/llm``, ordinary transformers folders."""
    parser = argparse.ArgumentParser(prog="wenet_osum make_models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="training text, a line each; test sentences must not be in it")
    parser.add_argument("--manifest", required=True, help="training manifest; from it the LLM learns its tasks as written speech (text/written.py)")
    parser.add_argument("--conf", required=True, help="yaml with the sizes (models/small.py)")
    parser.add_argument("--out", required=True, help="folder to write whisper/ and llm/ into")
    parser.add_argument("--threads", type=int, default=1, help="threads that train the LLM")
    parser.add_argument("--override", action="append", default=[], metavar="NAME=VALUE", help="e.g. llm.epochs=2")
    args = parser.parse_args(argv)
    conf = config.load(args.conf, SmallModels, args.override)
    lines = [line for line in Path(args.text).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{args.text} holds no text; run the stage that prepares the corpus first")
    logging.disable_progress_bar()
    torch.manual_seed(conf.seed)
    torch.set_num_threads(args.threads)
    utterances = [*read_manifest(args.manifest)]
    timed = tasks.parse("<TRANSCRIBE><ALIGN>")
    tokenizer = train_tokenizer([*lines, *(timed.write(u) for u in utterances if timed.present(u))], conf.vocab_size)
    save_whisper(conf.whisper, tokenizer, Path(args.out) / "whisper")
    llm = small_llm(conf.llm, tokenizer)
    print(f"{len(lines)} lines, {len(tokenizer)} tokens, LLM of {llm.num_parameters() / 1e6:.2f} M parameters", flush=True)
    writer = Writer(utterances, Template(tokenizer), conf.seed, conf.llm.shares, conf.llm.late)
    written = [*writer.lines(math.ceil(conf.llm.epochs * len(writer.utterances)))]
    loss = train_text_lm(llm, written, conf.llm, conf.seed)
    llm.save_pretrained(Path(args.out) / "llm")
    tokenizer.save_pretrained(str(Path(args.out) / "llm"))
    print(f"text LLM: {loss:.3f} nats a token; models in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

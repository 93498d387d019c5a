"""Stage 2 of recipes that train from scratch: a tokenizer, a Whisper-shaped model, and an LLM trained on the recipe's text.

Under torchrun all its processes train the LLM; the result is the same but for rounding.

examples:
  wenet_osum make_models --text data/train.txt --manifest data/train/manifest.jsonl --conf conf/models.yaml --out exp/init
  torchrun --standalone --nproc_per_node 2 -m wenet_osum.bin.make_models --text data/train.txt --manifest data/train/manifest.jsonl \
    --conf conf/models.yaml --out exp/init

exit status:
  0 done, 1 a fault of the files, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

from wenet_osum import config, tasks
from wenet_osum.bin._leave import fault, leave
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.models.small import SmallModels, save_whisper, small_llm
from wenet_osum.text.template import Template
from wenet_osum.text.train_tokenizer import train_tokenizer
from wenet_osum.text.written import Line, Writer
from wenet_osum.train import dist
from wenet_osum.train.text_lm import train_text_lm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM


def main(argv: list[str] | None = None) -> int:
    """Write ``OUT/whisper`` and ``OUT/llm``, ordinary transformers folders. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wenet_osum make_models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="training text, a line each; test sentences must not be in it")
    parser.add_argument("--manifest", required=True, help="training manifest; from it the LLM learns its tasks as written speech (text/written.py)")
    parser.add_argument("--conf", required=True, help="yaml with the sizes (models/small.py)")
    parser.add_argument("--out", required=True, help="folder to write whisper/ and llm/ into")
    parser.add_argument("--override", action="append", default=[], metavar="NAME=VALUE", help="e.g. llm.epochs=2")
    args = parser.parse_args(argv)
    try:
        conf = config.load(args.conf, SmallModels, args.override)
        logging.disable_progress_bar()
        _make(args, conf)
    except config.ConfigError as error:
        return fault("make_models", error, 2)
    except (ValueError, OSError) as error:
        return fault("make_models", error, 1)
    return 0


def _make(args: argparse.Namespace, conf: SmallModels) -> None:
    world, out = dist.start(threads=1), Path(args.out)
    try:
        tokenizer, llm, lines = dist.from_first(partial(_begin, args, conf))
        loss = train_text_lm(llm, lines, conf.llm, conf.seed, world)
    finally:
        dist.stop()
    if world.first:
        llm.save_pretrained(out / "llm")
        tokenizer.save_pretrained(str(out / "llm"))
        print(f"text LLM: {loss:.3f} nats a token; models in {out}", flush=True)


def _begin(args: argparse.Namespace, conf: SmallModels) -> tuple[PreTrainedTokenizerFast, Qwen2ForCausalLM, list[Line]]:
    """The tokenizer, a fresh LLM and what it will read; the Whisper-shaped model is written."""
    texts = [line for line in Path(args.text).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{args.text} holds no text; run the stage that prepares the corpus first")
    torch.manual_seed(conf.seed)
    utterances = [*read_manifest(args.manifest)]
    timed = tasks.parse("<TRANSCRIBE><ALIGN>")
    tokenizer = train_tokenizer([*texts, *(timed.write(u) for u in utterances if timed.present(u))], conf.vocab_size)
    save_whisper(conf.whisper, tokenizer, Path(args.out) / "whisper")
    llm = small_llm(conf.llm, tokenizer)
    print(f"{len(texts)} lines, {len(tokenizer)} tokens, LLM of {llm.num_parameters() / 1e6:.2f} M parameters", flush=True)
    writer = Writer(utterances, Template(tokenizer), conf.seed, conf.llm.shares, conf.llm.late)
    return tokenizer, llm, [*writer.lines(math.ceil(conf.llm.epochs * len(writer.utterances)))]


if __name__ == "__main__":
    leave(main())

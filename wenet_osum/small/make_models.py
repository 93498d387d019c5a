"""Make the models of a recipe that trains from nothing: a tokenizer, a Whisper-shaped model, an LLM
taught on text."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wenet_osum import tasks
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.small.models import SmallModels, save_whisper, small_llm
from wenet_osum.small.pseudo_speech import Line, PseudoSpeech
from wenet_osum.small.text_lm import train_text_lm
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template
from wenet_osum.train import dist

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM


def make_models(text: str, manifest: str, conf: SmallModels, out: Path) -> None:
    """Write ``out/whisper`` and ``out/llm``, ordinary transformers folders.

    ``text`` is a file of training text, a line each; from ``manifest`` the LLM learns its tasks as
    pseudo-speech. Under torchrun all processes train the LLM. Raises ValueError and OSError for
    files that cannot be used.
    """
    world = dist.start(threads=1)
    try:
        tokenizer, llm, lines = dist.from_rank_zero(partial(_begin, text, manifest, conf, out))
        loss = train_text_lm(llm, lines, conf.llm, conf.seed, world)
    finally:
        dist.stop()
    if world.is_rank_zero:
        llm.save_pretrained(out / "llm")
        tokenizer.save_pretrained(str(out / "llm"))
        print(f"text LLM: {loss:.3f} nats a token; models in {out}", flush=True)


def _begin(text: str, manifest: str, conf: SmallModels, out: Path) -> tuple[PreTrainedTokenizerFast, Qwen2ForCausalLM, list[Line]]:
    """Make the tokenizer, a fresh LLM and what it will read, and write the Whisper-shaped model."""
    texts = [line for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{text} holds no text; run the stage that prepares the corpus first")
    torch.manual_seed(conf.seed)
    utterances = [*read_manifest(manifest)]
    timed = tasks.parse("<TRANSCRIBE><ALIGN>")
    tokenizer = train_tokenizer([*texts, *(timed.write(u) for u in utterances if timed.present(u))], conf.vocab_size)
    save_whisper(conf.whisper, tokenizer, out / "whisper")
    llm = small_llm(conf.llm, tokenizer)
    print(f"{len(texts)} lines, {len(tokenizer)} tokens, LLM of {llm.num_parameters() / 1e6:.2f} M parameters", flush=True)
    speech = PseudoSpeech(utterances, Template(tokenizer), conf.seed, conf.llm.task_weights, conf.llm.leading_silence)
    return tokenizer, llm, [*speech.lines(math.ceil(conf.llm.epochs * len(speech.utterances)))]

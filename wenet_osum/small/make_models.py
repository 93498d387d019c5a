"""Make the models of a recipe that trains from nothing: a tokenizer, a Whisper-shaped model, and an
LLM trained on pseudo-speech."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wenet_osum import dist, tasks
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.small.models import SmallModels, save_whisper, small_llm
from wenet_osum.small.pseudo_speech import Line, PseudoSpeech
from wenet_osum.small.text_lm import train_text_lm
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

    from wenet_osum.records import Utterance


def make_models(text: str, manifest: str, conf: SmallModels, out: Path) -> None:
    """Write ``out/whisper`` and ``out/llm``, ordinary transformers folders.

    ``text`` is a file of training text, one sentence per line; from ``manifest`` the LLM learns its
    tasks as pseudo-speech. Under torchrun all processes train the LLM. Raises ValueError and
    OSError for files that cannot be used.
    """
    world = dist.start(threads=1)
    begin = partial(_begin, text, manifest, conf, out)
    try:
        tokenizer, llm, lines = dist.from_rank_zero(begin)
        loss = train_text_lm(llm, lines, conf.llm, conf.seed, world)
    finally:
        dist.stop()
    if world.is_rank_zero:
        folder = out / "llm"
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(str(folder))
        print(f"text LLM: {loss:.3f} nats per token; models in {out}", flush=True)


def _begin(
    text: str, manifest: str, conf: SmallModels, out: Path
) -> tuple[PreTrainedTokenizerFast, Qwen2ForCausalLM, list[Line]]:
    """Make the tokenizer, a fresh LLM and what it will read, and write the Whisper-shaped model."""
    texts = _read_text(text)
    torch.manual_seed(conf.seed)
    utterances = list(read_manifest(manifest))
    answers = _timed_answers(utterances)
    tokenizer = train_tokenizer([*texts, *answers], conf.vocab_size)
    save_whisper(conf.whisper, tokenizer, out / "whisper")

    llm = small_llm(conf.llm, tokenizer)
    millions = llm.num_parameters() / 1e6
    tokens = len(tokenizer)
    print(
        f"{len(texts)} lines, {tokens} tokens, LLM of {millions:.2f} M parameters",
        flush=True,
    )

    template = Template(tokenizer)
    speech = PseudoSpeech(
        utterances,
        template,
        conf.seed,
        conf.llm.task_weights,
        conf.llm.leading_silence,
    )
    count = math.ceil(conf.llm.epochs * len(speech.utterances))
    return tokenizer, llm, list(speech.lines(count))


def _read_text(path: str) -> list[str]:
    """Read the lines of a text file that are not empty. Raises ValueError when there is none."""
    whole = Path(path).read_text(encoding="utf-8")
    texts = [line for line in whole.splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{path} holds no text; run the stage that prepares the corpus first")
    return texts


def _timed_answers(utterances: list[Utterance]) -> list[str]:
    """Write the answers with word times, so that the tokenizer learns to write times."""
    timed = tasks.parse("<TRANSCRIBE><ALIGN>")
    return [timed.write(u) for u in utterances if timed.present(u)]

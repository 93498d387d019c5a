"""A byte-level BPE tokenizer for small models.

English words stay whole, a Chinese character is one token, digits are single, and a time takes two
tokens: ``<0.94>`` is ``<0.9`` and ``4>``. As single characters, times would be nine tenths of an
answer with word times, and a small LLM would have to remember for six tokens which frame it reads
the time from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wenet_osum import tasks
from wenet_osum.text.tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START = "<|startoftranscript|>"
# What a merge never crosses.
WORDS = r" ?<\d+\.\d|\d>|[\p{Han}\p{P}<>\d]| ?[^\s\p{Han}\p{P}<>\d]+|\s+"
# Prompts are counted this often, so that they stay short in tokens.
PROMPT_WEIGHT = 20


def train_tokenizer(lines: Iterable[str], vocab_size: int = 2000) -> PreTrainedTokenizerFast:
    """Train on text lines, the built-in prompts and the labels.

    ``lines`` hold answers with word times as well. ``vocab_size`` bounds the tokens. Every byte
    stays encodable, so no text is ever unknown.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT, START],
        show_progress=False,
    )

    # After the tag of a time, words stand without the space before them.
    lines = list(lines)
    inner_words = []
    for line in lines:
        _, _, rest = line.partition(" ")
        inner_words.append(rest)
    built_in = _built_in_texts() * PROMPT_WEIGHT
    core.train_from_iterator([*lines, *inner_words, *built_in], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        bos_token=START,
    )


def _built_in_texts() -> list[str]:
    """Return all prompts and labels of the built-in tasks."""
    texts = []
    for name in tasks.default_names():
        task = tasks.parse(name)
        for language in ("zh", "en"):
            texts += task.prompts(language)
        for field in task.label_fields:
            texts += [f"<{label}>" for label in field.labels.names]
    return texts

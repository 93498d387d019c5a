"""A byte-level BPE tokenizer for small models: English words whole, one token a Chinese character, single digits, two tokens a time.

``<0.94>`` is ``<0.9`` and ``4>``: as single characters times would be nine tenths of an answer with word times, and a small LLM would have
to carry where it looked through six tokens to say it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wenet_osum import tasks
from wenet_osum.text.tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START = "<|startoftranscript|>"
WORDS = r" ?<\d+\.\d|\d>|[\p{Han}\p{P}<>\d]| ?[^\s\p{Han}\p{P}<>\d]+|\s+"  # what a merge never crosses
PROMPT_WEIGHT = 20  # prompts are counted this often, so that they stay short in tokens


def train_tokenizer(lines: Iterable[str], vocab_size: int = 2000) -> PreTrainedTokenizerFast:
    """Train on text lines (also answers with word times), the built-in prompts and labels; every byte stays encodable, so no text is ever unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT, START],
        show_progress=False,
    )
    lines = list(lines)
    inner_words = [" ".join(line.split(" ")[1:]) for line in lines]  # words as they stand after a time tag, without the space
    core.train_from_iterator([*lines, *inner_words, *_built_in_texts() * PROMPT_WEIGHT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, bos_token=START)


def _built_in_texts() -> list[str]:
    texts = []
    for name in tasks.names():
        task = tasks.parse(name)
        texts += [text for lang in ("zh", "en") for text in task.prompts(lang)]
        texts += [f"<{label}>" for field in task.label_fields for label in field.labels.names]
    return texts

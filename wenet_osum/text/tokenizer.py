"""Tokenizers of transformers, used so that a user's text can never turn into a control token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name. Raises ValueError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer in {str(source)!r}: {error}; give a folder with tokenizer.json or a hub name") from None


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of plain text: nothing is added, and ``<|endoftext|>`` in it is spelt out, not the control token."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that ends an answer: ``<|endoftext|>`` where the vocabulary has it, else the end-of-sentence token."""
    found = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    if found is None or found == tokenizer.unk_token_id:
        found = tokenizer.eos_token_id
    if found is None:
        raise ValueError(f"tokenizer {tokenizer.name_or_path!r} has neither {END_OF_TEXT} nor an end-of-sentence token; add one")
    return found

"""Tokenizers of transformers, used so that a user's text can never turn into a control token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
# Classes whose tokenizer.json says everything.
WHOLE = ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_tokenizer(source: str | Path, **where: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub name; ``where`` are the hub's keywords (``revision``,
    …).

    In a folder whose model is a Qwen2, AutoTokenizer puts Qwen2's way of splitting words in place
    of the one in tokenizer.json; the ids would not be those the model was trained with. So a
    tokenizer that says it is whole is taken as it is. Raises ValueError when there is none.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    name = str(source)
    try:
        config = get_tokenizer_config(name, **where)
        is_whole = config.get("tokenizer_class") in WHOLE
        kind = PreTrainedTokenizerFast if is_whole else AutoTokenizer
        return kind.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer in {name!r}: {error}; give a folder with tokenizer.json or a hub name"
        ) from None


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode plain text: nothing is added, and ``<|endoftext|>`` in it is spelled out, not the
    control token."""
    ids, _ = _encoded(tokenizer, text)
    return list(ids)


def encode_with_offsets(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Encode plain text, and return the characters of it that each token stands for: the first, and
    the one after the last.

    Raises ValueError for a tokenizer that does not know them.
    """
    ids, offsets = _encoded(tokenizer, text)
    if offsets is None:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} is a slow one, which does not tell where its "
            "tokens stand; use a folder with tokenizer.json"
        )
    return list(ids), list(offsets)


@lru_cache(maxsize=64)
def _encoded(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[Sequence[int], Sequence[tuple[int, int]] | None]:
    """Return ids and offsets.

    Kept for a moment: a transcript is encoded for the answer and again for CTC. A fast tokenizer is
    asked without its wrapper, which takes as long.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.truncation or backend.padding:
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=backend is not None,
        )
        return encoded["input_ids"], encoded.get("offset_mapping")
    backend.encode_special_tokens = True
    found = backend.encode(text, add_special_tokens=False)
    return found.ids, found.offsets


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ends an answer: ``<|endoftext|>`` where the vocabulary has it, else the
    end-of-sentence token.

    Raises ValueError when there is neither.
    """
    found = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    if found is None or found == tokenizer.unk_token_id:
        found = tokenizer.eos_token_id
    if found is None:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has neither {END_OF_TEXT} nor an "
            "end-of-sentence token; add one"
        )
    return found

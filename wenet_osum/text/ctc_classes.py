"""Some of an LLM's tokens as the classes of CTC, and texts written with them alone.

A vocabulary of 150,000 is too rare per class for CTC on little data, and most of the work. So the
classes are those about a thousand tokens that the training transcripts need most: single
characters, and what the LLM's own merges make of them. A text is written by byte pair encoding with
the LLM's merges in the LLM's order, restricted to those that lead to a class. So the same text
always becomes the same tokens, and a word that is a class is the token that the LLM knows it by.

A file of classes holds token texts as the vocabulary spells them ("Ġthe" is " the"): a JSON list
where its name ends in .json, else one per line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenet_osum.text.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Examples in a message.
SOME = 5


def learn(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int) -> list[str]:
    """Choose at most ``size`` tokens for ``texts``: every character that occurs, then what the
    LLM's most frequent merges make.

    A merge is never more frequent than those that make its halves, so what is chosen can always be
    reached. Raises ValueError for another tokenizer than byte pair encoding, and when the
    characters alone are more than ``size``.
    """
    tree = _tree(tokenizer)
    ranks = {pair: rank for rank, pair in enumerate(_merges(tree))}

    # How often the texts need each character, and each merge.
    characters: Counter[str] = Counter()
    merges: Counter[tuple[str, str]] = Counter()
    for word, times in _words(tokenizer, texts).items():
        for character in word:
            characters[character] += times
        for pair in _merged(word, ranks):
            merges[pair] += times
    if len(characters) > size:
        raise ValueError(
            f"size {size}: the transcripts have {len(characters)} different characters, "
            "each of which must be a class; raise it"
        )

    # All characters, then the merges, the most frequent first.
    chosen = dict.fromkeys(sorted(characters))
    ordered = sorted(merges, key=lambda pair: (-merges[pair], ranks[pair]))
    for first, second in ordered:
        if len(chosen) == size:
            break
        if first in chosen and second in chosen:
            chosen[first + second] = None
    return list(chosen)


def read(tokenizer: PreTrainedTokenizerBase, source: str | Path) -> list[int]:
    """Read the token ids of a file of classes, or of a model folder that was trained with some.

    Raises ValueError for an unreadable file and for texts that are no tokens of the LLM.
    """
    path = Path(source)
    if path.is_dir():
        return _of_model(path)
    pieces = _of_file(path)
    vocabulary = tokenizer.get_vocab()
    unknown = [piece for piece in pieces if piece not in vocabulary]
    if unknown or not pieces:
        some = ", ".join(repr(piece) for piece in unknown[:SOME])
        raise ValueError(
            f"classes {source}: {len(unknown)} of {len(pieces)} lines are no token of "
            f"{tokenizer.name_or_path!r} ({some}); make the file anew for this LLM"
        )
    return sorted(vocabulary[piece] for piece in pieces)


def count(source: str | Path) -> int:
    """Count the classes of a file or model folder, as ``read`` takes them, without a tokenizer."""
    path = Path(source)
    found = _of_model(path) if path.is_dir() else _of_file(path)
    return len(found)


def _of_file(path: Path) -> list[str]:
    """Read the token texts of a file of classes, each once."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"classes {path}: cannot be read ({error}); "
            "make the file with tools/make_ctc_classes.py"
        ) from None
    pieces = dict.fromkeys(line for line in lines if line)
    return list(pieces)


def _of_model(folder: Path) -> list[int]:
    """Read the classes that a model was trained with."""
    config = folder / "config.json"
    tree = {}
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        tree = json.loads(text)
    for loss in tree.get("losses") or ():
        if loss.get("classes"):
            return loss["classes"]
    raise ValueError(f"classes {folder}: its config.json names none; give a file of classes")


class ClassEncoder:
    """Writes texts with the classes ``ids`` of a tokenizer.

    ``tokenizer`` is one that uses the merges among them alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.tokenizer = restricted(tokenizer, self.ids)
        # Token id → class.
        self._class_of: dict[int, int] = {}
        for number, token in enumerate(self.ids):
            self._class_of[token] = number

    def classes(self, tokens: Sequence[int]) -> list[int] | None:
        """Return the classes (places in ``ids``) of tokens; None where one is none: the text has a
        character that no class can write."""
        found = [self._class_of.get(token) for token in tokens]
        if None in found:
            return None
        return found

    def missing(self, text: str) -> set[str]:
        """Return the characters of ``text`` that no class can write."""
        found = set()
        for character in set(text):
            tokens = encode(self.tokenizer, character)
            if self.classes(tokens) is None:
                found.add(character)
        return found


@lru_cache(maxsize=4)
def restricted(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> PreTrainedTokenizerBase:
    """Return a tokenizer with the same ids that merges only what makes one of ``ids``."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tree = _tree(tokenizer)
    known = set(tokenizer.convert_ids_to_tokens(list(ids)))
    kept = []
    for first, second in _merges(tree):
        if {first, second, first + second} <= known:
            kept.append((first, second))
    tree["model"] |= {"merges": kept, "ignore_merges": False, "dropout": None}
    # Control tokens are never part of a transcript; spelled out they are text.
    tree |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    backend = Tokenizer.from_str(json.dumps(tree))
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    made.name_or_path = tokenizer.name_or_path
    return made


def _tree(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the tokenizer.json of a tokenizer. Raises ValueError unless it merges pairs."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    tree = json.loads(backend.to_str()) if backend is not None else {}
    kind = tree.get("model", {}).get("type", "of the slow kind")
    if kind != "BPE":
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} is {kind}; classes are made of the merges of "
            "byte pair encoding (BPE). Use all tokens: classes: null"
        )
    return tree


def _merges(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the merges in their order; older files write a pair as one string."""
    pairs = []
    for row in tree["model"]["merges"]:
        if isinstance(row, str):
            row = row.split(" ")
        first, second = row
        pairs.append((first, second))
    return pairs


def _words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Counter[str]:
    """Count the words that no merge crosses, as the vocabulary spells them."""
    backend = tokenizer.backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            words[text] += 1
        else:
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    return words


def _merged(word: str, ranks: dict[tuple[str, str], int]) -> Iterator[tuple[str, str]]:
    """Yield the merges that byte pair encoding makes in ``word``, one after the other."""
    parts = list(word)
    while True:
        pairs = list(zip(parts, parts[1:], strict=False))
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return
        best = min(known, key=ranks.__getitem__)
        place = pairs.index(best)
        parts[place : place + 2] = ["".join(best)]
        yield best


def coverage(
    tokenizer: PreTrainedTokenizerBase, encoder: ClassEncoder, texts: Sequence[str]
) -> str:
    """Say how many texts the classes can write, in how many pieces, and what is missing."""
    pieces = plain = 0
    missing: Counter[str] = Counter()
    written = 0
    for text in texts:
        tokens = encode(encoder.tokenizer, text)
        if encoder.classes(tokens) is None:
            missing.update(sorted(encoder.missing(text)))
            continue
        written += 1
        pieces += len(tokens)
        plain += len(encode(tokenizer, text))
    count = max(1, written)
    classes_each, tokens_each = pieces / count, plain / count
    said = f"{len(texts)} transcripts, {classes_each:.1f} classes each ({tokens_each:.1f} tokens)"
    if not missing:
        return said + ", all can be written"
    examples = []
    for piece, times in missing.most_common(SOME):
        examples.append(f"{piece!r} {times}")
    some = ", ".join(examples)
    left_out = len(texts) - written
    return f"{said}, {left_out} cannot be written and CTC leaves them out ({some})"

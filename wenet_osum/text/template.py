"""The only place that knows how prompt, speech and answer are laid out.

    prompt ids · speech start · speech · speech end · answer ids, the last of them the end of text

Targets are encoded field by field and the ids joined, so that a label starts at a token border (a BPE would merge ``。<``
and ``><``). Converted checkpoints were trained on whole strings: ``target_tokenization="whole"``.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wenet_osum import lookup, migrate, tasks
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Field, Task, escape
from wenet_osum.text.timing import Span, timed_tokens
from wenet_osum.text.tokenizer import encode, encode_with_offsets, end_id, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "text.json"  # lies beside the tokenizer in a model folder
LANGUAGES = ("zh", "en")


@dataclass
class Target:
    """What the model has to say for one utterance."""

    ids: list[int]  # answer tokens, the end of text last
    weights: list[float]  # loss weight of each
    labels: list[bool]  # whether each belongs to a label


class Template:
    """Prompts, targets and their token ids for one model.

    ``labels`` are the user's label sets by field name, ``prompts`` a table {task: {zh: […], en: […]}} or the path of a yaml
    with it (a plain list counts as Chinese), ``loss_weight`` weights answer tokens by field name.
    Raises ValueError for a field that no task has.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: dict[str, list[str]] | None = None,
        prompts: dict | str | Path | None = None,
        target_tokenization: str = "by_field",
        lowercase: bool = False,
        loss_weight: dict[str, float] | None = None,
    ) -> None:
        self.tokenizer, self.labels, self.target_tokenization, self.lowercase = tokenizer, labels or {}, target_tokenization, lowercase
        self.loss_weight = loss_weight or {}
        known = sorted({f.name for name in tasks.names() for f in tasks.parse(name).fields})
        for name in self.loss_weight:
            if name not in known:
                raise ValueError(f"loss_weight: {lookup.unknown('field', name, known)}")
        self.end_id = end_id(tokenizer)
        self.prompts = _read_prompts(prompts)
        self.task = lru_cache(maxsize=None)(self._task)
        self._encoded = lru_cache(maxsize=4096)(lambda text: encode(tokenizer, text))

    def _task(self, text: str) -> Task:
        return tasks.parse(text, self.labels or None)

    def prompt_text(self, task: Task, lang: str = "zh", pick: int = 0) -> str:
        """Prompt number ``pick`` of a task; item 0 is the one scoring uses. Raises ValueError for a language without prompts."""
        return self._prompt_texts(task, lang)[pick]

    def _prompt_texts(self, task: Task, lang: str) -> list[str]:
        own = self.prompts.get(task.tags, {})
        if own and lang not in own:
            raise ValueError(f"no {lang!r} prompts for {task.tags}; the prompt table has {', '.join(own)}")
        return own.get(lang) or task.prompts(lang)

    def prompt_ids(self, task: Task, lang: str = "zh", pick: int = 0) -> list[int]:
        """Token ids of a prompt."""
        return list(self._encoded(self.prompt_text(task, lang, pick)))

    def draw_prompt_ids(self, task: Task, seed: int, epoch: int, key: str) -> list[int]:
        """Token ids of a prompt drawn over all languages and wordings; the same for the same (seed, epoch, key)."""
        texts = [t for lang in self.prompts.get(task.tags, LANGUAGES) for t in self._prompt_texts(task, lang)]
        return list(self._encoded(texts[zlib.crc32(f"{seed} {epoch} {key}".encode()) % len(texts)]))

    def target(self, task: Task, utterance: Utterance) -> Target:
        """The answer to learn. Raises ValueError when the utterance lacks a field of the task."""
        pieces = [(field.name, self._cased(text)) for field, text in task.targets(utterance)]
        if self.target_tokenization == "by_field":
            encoded = [(name, self.encode(text)) for name, text in pieces]
        else:
            encoded = self._encode_whole(pieces)
        ids = [i for _, part in encoded for i in part]
        names = [name for name, part in encoded for _ in part]
        weights = [self.loss_weight.get(name, 1.0) for name in names]
        of_labels = {field.name for field in task.label_fields}
        labels = [name in of_labels for name in names]
        return Target([*ids, self.end_id], [*weights, 1.0], [*labels, False])

    def _encode_whole(self, pieces: list[tuple[str, str]]) -> list[tuple[str, list[int]]]:
        """Ids of the joined string; a token belongs to the field its first character lies in."""
        ids, offsets = encode_with_offsets(self.tokenizer, "".join(text for _, text in pieces))
        owner = [name for name, text in pieces for _ in text]
        return [(owner[start], [i]) for i, (start, _) in zip(ids, offsets, strict=True)]

    def transcript(
        self, utterance: Utterance, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> tuple[list[int], list[Span]]:
        """Token ids of the plain transcript and when each is spoken (text/timing.py), both empty when it is not known.

        ``tokenizer`` is another way to cut it into tokens; None: the model's own.
        """
        text = self.transcript_text(utterance)
        words = [word._replace(text=self._cased(word.text)) for word in utterance.words or []]
        return timed_tokens(tokenizer or self.tokenizer, text, words) if text else ([], [])

    def transcript_text(self, utterance: Utterance) -> str:
        """Return the transcript as it stands in an answer; empty when it is not known."""
        return self._cased(escape(" ".join((utterance.txt or "").split())))

    def label_ids(self, field: Field) -> dict[str, list[int]]:
        """Token ids of each label of a field as it stands in an answer."""
        return {name: list(self._encoded(self._cased(f"<{name}>"))) for name in field.labels.names}

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return encode(self.tokenizer, text)

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, without the end of text and whatever follows it."""
        ids = list(ids)
        kept = ids[: ids.index(self.end_id)] if self.end_id in ids else ids
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and text settings into a model folder."""
        self.tokenizer.save_pretrained(str(folder))
        settings = {"format_version": migrate.FORMAT_VERSION, "labels": self.labels, "prompts": self.prompts, "target_tokenization": self.target_tokenization, "lowercase": self.lowercase}
        (Path(folder) / FILE).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, loss_weight: dict[str, float] | None = None) -> Template:
        """Read what ``save`` wrote; a folder without text settings gets the built-in ones."""
        return cls(load_tokenizer(folder), loss_weight=loss_weight, **read_settings(folder))


def read_settings(source: str | Path, **where: Any) -> dict[str, Any]:
    """The text settings in a model folder or under a hub name, {} when there are none; ``where`` are the hub's keywords (``revision``, …)."""
    from transformers.utils import cached_file

    path = cached_file(str(source), FILE, _raise_exceptions_for_missing_entries=False, **where)
    return migrate.text_settings(json.loads(Path(path).read_text(encoding="utf-8")), path) if path else {}


def _read_prompts(source: dict | str | Path | None) -> dict[str, dict[str, list[str]]]:
    """Prompt table by canonical tags. Raises ValueError for a malformed table or an unknown task."""
    if source is None:
        return {}
    table = source if isinstance(source, dict) else yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    if not isinstance(table, dict):
        raise ValueError(f"prompts {source} must be a table {{task: {{zh: […], en: […]}}}}, got {type(table).__name__}")
    read = {}
    for name, rows in table.items():
        rows = {"zh": rows} if isinstance(rows, list) else rows
        if not isinstance(rows, dict) or not all(lang in LANGUAGES and texts and all(isinstance(t, str) for t in texts) for lang, texts in rows.items()):
            raise ValueError(f"prompts of {name!r} must be {{zh: [sentence, …], en: [sentence, …]}}, got {str(rows)[:80]}")
        read[tasks.parse(name).tags] = {lang: list(texts) for lang, texts in rows.items()}
    return read

"""The only place that knows how prompt, speech and answer are laid out.

    prompt ids · speech start · speech · speech end · suffix ids · answer ids, the last of them the end

``template: plain``, for base LLMs and converted checkpoints: the prompt is the task's wording, there
is no suffix, and the end of text ends an answer. ``template: chat``, for Instruct LLMs: prompt and
suffix are what the LLM's own chat template writes around the speech, which stands in the user's
turn, and the end of turn ends an answer (text/chat.py).

Targets are encoded field by field and the ids joined, so that a label starts at a token border (a BPE would merge ``。<``
and ``><``). Converted checkpoints were trained on whole strings: ``target_tokenization="whole"``.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wenet_osum import lookup, migrate, tasks
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Field, Task, escape
from wenet_osum.text import chat
from wenet_osum.text.timing import Span, timed_tokens
from wenet_osum.text.tokenizer import encode, encode_with_offsets, end_id, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "text.json"  # lies beside the tokenizer in a model folder
LANGUAGES = ("zh", "en")
TEMPLATES = ("plain", "chat")


@dataclass
class Target:
    """What the model has to say for one utterance."""

    ids: list[int]  # answer tokens, the end last
    weights: list[float]  # loss weight of each
    labels: list[bool]  # whether each belongs to a label


class Template:
    """Prompts, targets and their token ids for one model.

    ``labels`` are the user's label sets by field name, ``prompts`` a table {task: {zh: […], en: […]}} or the path of a yaml
    with it (a plain list counts as Chinese), ``loss_weight`` weights answer tokens by field name,
    ``template`` is one of ``TEMPLATES``, ``system`` the system message of a chat (None: what the
    chat template writes by itself).
    Raises ValueError for a field that no task has, and where the tokenizer's chat template does
    not fit.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: dict[str, list[str]] | None = None,
        prompts: dict | str | Path | None = None,
        target_tokenization: str = "by_field",
        lowercase: bool = False,
        loss_weight: dict[str, float] | None = None,
        template: str = "plain",
        system: str | None = None,
    ) -> None:
        self.tokenizer, self.labels, self.target_tokenization, self.lowercase = tokenizer, labels or {}, target_tokenization, lowercase
        self.loss_weight = loss_weight or {}
        known = sorted({f.name for name in tasks.names() for f in tasks.parse(name).fields})
        for name in self.loss_weight:
            if name not in known:
                raise ValueError(f"loss_weight: {lookup.unknown('field', name, known)}")
        if template not in TEMPLATES:
            raise ValueError(lookup.unknown("template", template, [*TEMPLATES]))
        if system is not None and template != "chat":
            raise ValueError(f"system {system!r}: template {template} has no system message; set template: chat")
        self.template, self.system = template, system
        self.chat = chat.read_form(tokenizer, system) if template == "chat" else None
        self.suffix_ids = self.chat.after if self.chat else []  # token ids between speech and answer
        self.end_id = self.chat.end_id if self.chat else end_id(tokenizer)  # of an answer
        # An Instruct LLM may also end with its end of text, which is then no part of the answer.
        self.end_ids = frozenset({self.end_id, end_id(tokenizer)} if self.chat else {self.end_id})
        self.prompts = _read_prompts(prompts)
        self.task = lru_cache(maxsize=None)(self._task)
        self._encoded = lru_cache(maxsize=4096)(lambda text: encode(tokenizer, text))
        self._encoded_prompt = lru_cache(maxsize=4096)(self._encode_prompt)

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
        return self.encode_prompt(self.prompt_text(task, lang, pick))

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a wording as it stands before the speech; in a chat with all that comes before it."""
        return list(self._encoded_prompt(text))

    def _encode_prompt(self, text: str) -> list[int]:
        return self.chat.prompt_ids(self.tokenizer, text) if self.chat else encode(self.tokenizer, text)

    def draw_prompt_ids(self, task: Task, seed: int, epoch: int, key: str) -> list[int]:
        """Token ids of a prompt drawn over all languages and wordings; the same for the same (seed, epoch, key)."""
        texts = [t for lang in self.prompts.get(task.tags, LANGUAGES) for t in self._prompt_texts(task, lang)]
        return self.encode_prompt(texts[zlib.crc32(f"{seed} {epoch} {key}".encode()) % len(texts)])

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
        """Text of token ids, without the end and whatever follows it."""
        kept = list(takewhile(lambda token: token not in self.end_ids, ids))
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and text settings into a model folder."""
        self.tokenizer.save_pretrained(str(folder))
        names = ("labels", "prompts", "target_tokenization", "lowercase", "template", "system")
        settings = {"format_version": migrate.FORMAT_VERSION} | {name: getattr(self, name) for name in names}
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

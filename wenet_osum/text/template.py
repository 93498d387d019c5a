"""The only place that knows how prompt, speech and answer are laid out.

    prompt ids · speech start · speech · speech end · suffix ids · answer ids

The last of the answer ids is the end.

``template: plain``, for base LLMs and converted checkpoints: the prompt is the task's wording,
there is no suffix, and the end of text ends an answer. ``template: chat``, for Instruct LLMs:
prompt and suffix are what the LLM's own chat template writes around the speech, which stands in the
user's turn, and the end of turn ends an answer (text/chat.py).

A conversation is one such row after another. A turn that nobody answered has neither suffix nor
answer, and one without a recording no speech. Behind an answer, ``chat`` opens the user's next turn
as the LLM's chat template does.

Wordings may hold slots for a context, hotwords and what was said before (slots.py).

Targets are encoded field by field and the ids joined, so that a label starts at a token border (a
BPE would merge ``。<`` and ``><``). Converted checkpoints were trained on whole strings:
``target_tokenization="whole"``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenet_osum import lookup, migrate, tasks
from wenet_osum.context import NOTHING, SLOTS, Context
from wenet_osum.files import write_text
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Field, Task, escape
from wenet_osum.text import chat, slots
from wenet_osum.text.prompts import LANGUAGES, read_prompts
from wenet_osum.text.timing import Span, timed_tokens
from wenet_osum.text.tokenizer import encode, encode_with_offsets, end_id, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Lies beside the tokenizer in a model folder.
FILE = "text.json"
# What comes before a turn: nothing, an answer, or words of the same turn.
FIRST, NEXT, SAME = "first", "next", "same"
TEMPLATES = ("plain", "chat")
# What FILE holds beside its version: arguments of Template.
SETTINGS = (
    "labels",
    "prompts",
    "target_tokenization",
    "lowercase",
    "template",
    "system",
    "tasks",
)
# Stands where a prompt is for no utterance in particular.
NOBODY = Utterance("", "")


@dataclass
class Target:
    """The answer that the model has to learn for one utterance."""

    # Answer tokens, the end last.
    ids: list[int] = field(default_factory=list)
    # Loss weight of each.
    weights: list[float] = field(default_factory=list)
    # Whether each belongs to a label, and whether to a transcript.
    labels: list[bool] = field(default_factory=list)
    transcripts: list[bool] = field(default_factory=list)


class Template:
    """Prompts, targets and their token ids for one model.

    ``labels`` are the user's label sets by field name, ``prompts`` a table {task: {zh: […], en:
    […]}} or the path of a yaml with it (a plain list counts as Chinese), ``loss_weight`` weights
    answer tokens by field name, ``template`` is one of ``TEMPLATES``, ``system`` the system message
    of a chat (None: what the chat template writes by itself), ``tasks`` names what the model was
    taught beside the default tasks, ``context`` the slots of prompts that it was trained with.
    Raises ValueError for a field that no task has, and where the tokenizer's chat template does not
    fit.
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
        tasks: list[str] | None = None,
        context: Sequence[str] = (),
    ) -> None:
        _check_template(template, system)
        self.tokenizer = tokenizer
        self.labels = labels or {}
        self.prompts = read_prompts(prompts)
        self.target_tokenization = target_tokenization
        self.lowercase = lowercase
        self.loss_weight = loss_weight or {}
        _check_fields(self.loss_weight)
        self.template = template
        self.system = system
        self.tasks = tasks or []
        self.context = [name for name in SLOTS if name in context]

        # What stands between speech and answer, and what ends an answer.
        self.chat: chat.ChatForm | None = None
        self.suffix_ids: list[int] = []
        end_of_text = end_id(tokenizer)
        self.end_id = end_of_text
        if template == "chat":
            self.chat = chat.read_form(tokenizer, system)
            self.suffix_ids = self.chat.after
            self.end_id = self.chat.end_id
        # An Instruct LLM may also end with its end of text, which is then no part of the answer.
        self.end_ids = frozenset({self.end_id, end_of_text} if self.chat else {self.end_id})

        # The same few texts are asked for again and again.
        self.task = lru_cache(maxsize=None)(self._task)
        self._encoded_label = lru_cache(maxsize=4096)(self.encode)
        self._encoded_prompt = lru_cache(maxsize=4096)(self._encode_prompt)

    def _task(self, text: str) -> Task:
        labels = self.labels or None
        return tasks.parse(text, labels)

    def task_names(self) -> list[str]:
        """Return the names of the tasks that pages and cards list: default ones and ``tasks``."""
        return [*tasks.default_names(), *self.tasks]

    # -- prompts ------------------------------------------------------------------------------

    def prompt_text(self, task: Task, lang: str = "zh", pick: int = 0) -> str:
        """Return prompt number ``pick`` of a task; item 0 is the one scoring uses.

        Raises ValueError for a language without prompts.
        """
        texts = self._prompt_texts(task, lang)
        return texts[pick]

    def _prompt_texts(self, task: Task, lang: str) -> list[str]:
        """Return all wordings of a task in one language, those of the user's table first."""
        own = self.prompts.get(task.tags, {})
        if own and lang not in own:
            known = ", ".join(own)
            raise ValueError(f"no {lang!r} prompts for {task.tags}; the prompt table has {known}")
        return own.get(lang) or task.prompts(lang)

    def prompt_ids(self, task: Task, lang: str = "zh", pick: int = 0) -> list[int]:
        """Return the token ids of a prompt."""
        text = self.prompt_text(task, lang, pick)
        return self.encode_prompt(task.fill(text, NOBODY))

    def encode_prompt(self, text: str, place: str = FIRST, context: Context = NOTHING) -> list[int]:
        """Encode a wording as it stands before the speech; in a chat with all that comes before
        it. ``place`` is FIRST, or in a conversation NEXT or SAME, ``context`` is put into the
        wording's slots (slots.py)."""
        cased = Context(
            tuple(map(self._cased, context.hotwords)),
            self._cased(context.previous),
        )
        filled = slots.fill(text, cased, self.context)
        ids = self._encoded_prompt(filled, place)
        return list(ids)

    def slots(self, wording: str) -> list[str]:
        """Name what can be told with a wording: its slots, and those the model was trained with."""
        able = slots.slots_in(wording).union(self.context)
        return [name for name in SLOTS if name in able]

    def _encode_prompt(self, text: str, place: str) -> list[int]:
        if self.chat is None or place == SAME:
            return self.encode(text)
        if place == NEXT:
            return self._next_opening.ids(self.tokenizer, text)
        return self.chat.prompt_ids(self.tokenizer, text)

    @cached_property
    def _next_opening(self) -> chat.Opening:
        """What stands behind an answer of a chat, before the user's next words."""
        return chat.read_next_opening(self.tokenizer, self.chat, self.system)

    def draw_prompt_ids(self, task: Task, seed: int, epoch: int, key: str) -> list[int]:
        """Return the token ids of ``draw_prompt``."""
        text = self.draw_prompt(task, seed, epoch, key)
        return self.encode_prompt(task.fill(text, NOBODY))

    def draw_prompt(self, task: Task, seed: int, epoch: int, key: str) -> str:
        """Return a prompt drawn over all languages and wordings; the same for the same (seed,
        epoch, key)."""
        texts: list[str] = []
        for lang in self.prompts.get(task.tags, LANGUAGES):
            texts += self._prompt_texts(task, lang)
        draw = f"{seed} {epoch} {key}"
        number = zlib.crc32(draw.encode())
        return texts[number % len(texts)]

    # -- targets ------------------------------------------------------------------------------

    def target(self, task: Task, utterance: Utterance) -> Target:
        """Return the answer to learn.

        Raises ValueError when the utterance lacks a field of the task.
        """
        pieces = []
        for written, text in task.targets(utterance):
            pieces.append((written.name, self._cased(text)))
        if self.target_tokenization == "by_field":
            encoded = [(name, self.encode(text)) for name, text in pieces]
        else:
            encoded = self._encode_whole(pieces)

        # Each token weighs as its field does, and the end 1.
        kinds = {field.name: field.kind for field in task.fields}
        target = Target()
        for name, ids in encoded:
            count = len(ids)
            weight = self.loss_weight.get(name, 1.0)
            target.ids += ids
            target.weights += [weight] * count
            kind = kinds[name]
            is_label = kind == "label"
            is_transcript = kind == "transcript"
            target.labels += [is_label] * count
            target.transcripts += [is_transcript] * count
        target.ids.append(self.end_id)
        target.weights.append(1.0)
        target.labels.append(False)
        target.transcripts.append(False)
        return target

    def _encode_whole(self, pieces: list[tuple[str, str]]) -> list[tuple[str, list[int]]]:
        """Encode the joined string; a token belongs to the field its first character lies in."""
        text = ""
        # The field of each character.
        owner: list[str] = []
        for name, piece in pieces:
            text += piece
            owner += [name] * len(piece)
        ids, offsets = encode_with_offsets(self.tokenizer, text)
        encoded = []
        for token, (start, _) in zip(ids, offsets, strict=True):
            encoded.append((owner[start], [token]))
        return encoded

    def beginning_ids(self, text: str) -> list[int]:
        """Return the token ids of the text that an answer begins with, encoded as targets are."""
        bare = text.strip()
        return self.encode(self._cased(bare))

    def transcript(
        self, utterance: Utterance, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> tuple[list[int], list[Span]]:
        """Return the token ids of the plain transcript and when each is spoken (text/timing.py),
        both empty when it is not known.

        ``tokenizer`` is another way to cut it into tokens; None: the model's own.
        """
        text = self.transcript_text(utterance)
        if not text:
            return [], []
        words = []
        for word in utterance.words or []:
            cased = self._cased(word.text)
            words.append(word._replace(text=cased))
        return timed_tokens(tokenizer or self.tokenizer, text, words)

    def transcript_text(self, utterance: Utterance) -> str:
        """Return the transcript as it stands in an answer; empty when it is not known."""
        txt = utterance.txt or ""
        line = " ".join(txt.split())
        return self._cased(escape(line))

    def label_ids(self, field: Field) -> dict[str, list[int]]:
        """Return the token ids of each label of a field as it stands in an answer."""
        found = {}
        for name in field.labels.names:
            text = self._cased(f"<{name}>")
            ids = self._encoded_label(text)
            found[name] = list(ids)
        return found

    # -- text and tokens ----------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Encode plain text."""
        return encode(self.tokenizer, text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, without the end and whatever follows it."""
        kept = list(takewhile(lambda token: token not in self.end_ids, ids))
        return self.tokenizer.decode(
            kept,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )

    def _cased(self, text: str) -> str:
        if self.lowercase:
            return text.lower()
        return text

    # -- saved, loaded ------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and text settings into a model folder."""
        self.tokenizer.save_pretrained(str(folder))
        settings: dict[str, Any] = {"format_version": migrate.FORMAT_VERSION}
        for name in SETTINGS:
            settings[name] = getattr(self, name)
        # A folder of a model without is what it was before there were slots.
        if self.context:
            settings["context"] = self.context
        text = json.dumps(settings, ensure_ascii=False, indent=1)
        path = Path(folder) / FILE
        write_text(path, text)

    @classmethod
    def load(cls, folder: str | Path, loss_weight: dict[str, float] | None = None) -> Template:
        """Read what ``save`` wrote; a folder without text settings gets the built-in ones."""
        tokenizer = load_tokenizer(folder)
        settings = read_settings(folder)
        return cls(tokenizer, loss_weight=loss_weight, **settings)


def _check_template(template: str, system: str | None) -> None:
    """Raise ValueError for an unknown template, and for a system message where there is none."""
    if template not in TEMPLATES:
        raise ValueError(lookup.unknown("template", template, [*TEMPLATES]))
    if system is not None and template != "chat":
        raise ValueError(
            f"system {system!r}: template {template} has no system message; set template: chat"
        )


def _check_fields(loss_weight: dict[str, float]) -> None:
    """Raise ValueError for a field that no task has."""
    known = set()
    for name in tasks.names():
        known |= {field.name for field in tasks.parse(name).fields}
    for name in loss_weight:
        if name not in known:
            raise ValueError(f"loss_weight: {lookup.unknown('field', name, sorted(known))}")


def read_settings(source: str | Path, **where: Any) -> dict[str, Any]:
    """Read the text settings in a model folder or under a hub name, {} when there are none.

    ``where`` are the hub's keywords (``revision``, …).
    """
    from transformers.utils import cached_file

    name = str(source)
    path = cached_file(name, FILE, _raise_exceptions_for_missing_entries=False, **where)
    if not path:
        return {}
    text = Path(path).read_text(encoding="utf-8")
    settings = json.loads(text)
    return migrate.text_settings(settings, path)

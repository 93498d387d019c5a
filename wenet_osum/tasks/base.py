"""The parts of a task: label sets, fields, and a sequence of fields with its prompts.

A field knows how it is written into a target, read back from an answer and asked for in a prompt.
Reading takes leading fields from the left and trailing ones from the right; the transcript is what
remains. What cannot be read is kept as "unread", never an exception: scorers count it as wrong.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from wenet_osum.records import Hypothesis, Utterance, Word

# Seconds inside a time tag.
TIME = re.compile(r"\d+(?:\.\d*)?")
# An escaped character, a tag, or a character.
UNIT = re.compile(r"\\.|<((?:[^<>\\]|\\.)*)>|.", re.DOTALL)
# Characters written without spaces between words: Han, kana, CJK punctuation, full-width forms.
# Hangul is no part of it: Korean puts spaces between its words.
CJK = re.compile(
    r"[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff00-\uff9f\uffe0-\uffef\U00020000-\U0003ffff]"
)
# The tag of a field, which may be one that modifies another.
FIELD_TAG = re.compile(r"<[A-Z0-9_]+>( <[A-Z0-9_]+>)?")
# Characters of a text that a message shows.
SHOWN = 40


def escape(text: str) -> str:
    r"""Write free text as it stands in a target: ``\``, ``<`` and ``>`` get a ``\`` before them."""
    return re.sub(r"([\\<>])", r"\\\1", text)


def unescape(text: str) -> str:
    """Undo ``escape``; a lone backslash stays."""
    return re.sub(r"\\([\\<>])", r"\1", text)


def find_tags(text: str) -> list[re.Match]:
    """Find the unescaped tags of a text; group 1 is what stands between ``<`` and ``>``."""
    return [unit for unit in UNIT.finditer(text) if unit[1] is not None]


def join_words(texts: list[str]) -> str:
    """Join words to running text.

    Spaces stand between words, but not beside a Chinese or Japanese character.
    """
    line = ""
    for text in texts:
        if line and text and not CJK.match(line[-1]) and not CJK.match(text[0]):
            line += " "
        line += text
    return line


class LabelSet:
    """Canonical labels with the spellings corpora and models use for them.

    Raises ValueError when there is no label, when one occurs twice, for labels that cannot be
    written as a tag, and for spellings that are no list or stand under two labels.
    """

    def __init__(
        self, names: list[str] | tuple[str, ...], aliases: dict[str, list[str]] | None = None
    ) -> None:
        self.names = tuple(names)
        _check_names(self.names)

        # folded spelling → label
        self._canonical: dict[str, str] = {}
        self.aliases: dict[str, list[str]] = {}
        known = aliases or {}
        for name in self.names:
            spellings = known.get(name, [])
            if isinstance(spellings, str):
                raise ValueError(
                    f"label {name!r}: its spellings must be a list, write [{spellings!r}]"
                )
            self.aliases[name] = list(spellings)
            for spelling in self.aliases[name]:
                first = self._canonical.setdefault(_fold(spelling), name)
                if first != name:
                    raise ValueError(f"spelling {spelling!r} stands under {first!r} and {name!r}")

        # A label's own name wins where it is also another label's spelling.
        for name in self.names:
            self._canonical[_fold(name)] = name

    def find(self, text: object) -> str | None:
        """Return the canonical label of a known spelling, None for an unknown one.

        Neither case nor ``< >`` around the label matters.
        """
        folded = _fold(str(text))
        return self._canonical.get(folded)


def _check_names(names: tuple[str, ...]) -> None:
    """Raise ValueError for label names that cannot be told apart or be written as a tag."""
    folded = {_fold(name) for name in names}
    if not names or len(folded) != len(names):
        raise ValueError(f"label set {list(names)} must hold at least one label and each once")
    bad = []
    for name in names:
        unwritable = re.search(r"[<>\\\n]", name) or not name.strip()
        if unwritable or TIME.fullmatch(name):
            bad.append(name)
    if bad:
        raise ValueError(
            f"labels {bad} must not be empty, a number, or contain < > \\ or a line break"
        )


def _check_languages(what: str, table: dict[str, Any]) -> None:
    """Raise ValueError for a table that lacks a language that prompts are drawn in."""
    lacking = [lang for lang in COMPOSED if lang not in table]
    if lacking:
        raise ValueError(f"{what} must hold {' and '.join(COMPOSED)}, {', '.join(lacking)} lacks")


def _fold(text: str) -> str:
    """Reduce a spelling to what counts: no case, no ``< >``, one space for ``_`` and ``-``."""
    bare = text.strip().strip("<>")
    spaced = re.sub(r"[_\-\s]+", " ", bare)
    words = spaced.lower().split()
    return " ".join(words)


@dataclass
class Reading:
    """An answer taken apart. ``unread`` maps a field's name to what was found instead."""

    transcript: str | None = None
    words: list[Word] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    reply: str | None = None
    unread: dict[str, str] = field(default_factory=dict)
    # free texts of other fields, by the field's name
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """A field of a task. ``tasks/fields.py`` has the kinds."""

    # such as "emotion"; names the field in reports, label tables and loss weights
    name: str
    # such as "<EMOTION>"
    tag: str
    # the label or field of an Utterance that holds the value, by its name in a manifest
    attribute: str
    # file name in metrics/; it also says how an answer is decoded where that is "timestamps"
    metric: str
    # language → the phrase a composed prompt asks with
    ask: dict[str, str]
    labels: LabelSet | None = None
    # transcript, label or reply, which is free text up to the end of the answer
    kind: str = "label"
    # further files in metrics/
    more_metrics: tuple[str, ...] = ()
    # further labels of an Utterance that writing or scoring reads, by their names in a manifest
    beside: tuple[str, ...] = ()
    # a transcript with marks between its words, which CTC does not hear
    marked: bool = False

    def __post_init__(self) -> None:
        if not FIELD_TAG.fullmatch(self.tag):
            raise ValueError(
                f"field {self.name!r}: tag {self.tag!r} must read <LIKE_THIS>, A-Z, 0-9 and _"
            )
        _check_languages(f"field {self.name!r}: ask", self.ask)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All files in metrics/ that score the field."""
        return (self.metric, *self.more_metrics)

    def value(self, utterance: Utterance) -> object | None:
        """Return what the utterance holds for this field in canonical form, or None."""
        return utterance.get(self.attribute)

    def present(self, utterance: Utterance) -> bool:
        """Tell whether the utterance can be a target for this field."""
        return self.value(utterance) is not None

    def unknown(self, utterance: Utterance) -> str | None:
        """Give the label that the utterance holds and the label set does not know; else None."""
        return None

    def write(self, utterance: Utterance) -> str:
        """Write this field's piece of the target. The utterance must hold the field."""
        return f"<{self.value(utterance)}>"

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return what was read of an answer by the names that a manifest has for it, None for what
        could not be read."""
        return {self.attribute: answer.labels.get(self.name)}

    def fill(self, prompt: str, utterance: Utterance) -> str:
        """Write into a prompt what the field has to say of one utterance; most have nothing."""
        return prompt


@dataclass(frozen=True)
class Task:
    """A row of fields, asked for with one prompt and written in the order of the tags."""

    # such as "ser", or the tags when the task is a free combination
    name: str
    fields: tuple[Field, ...]
    # language → prompts; without them, prompts are composed from the fields
    written_prompts: dict[str, list[str]] = field(default_factory=dict)
    # False: what goes over all tasks (small models, their tokenizers, model cards) leaves it out,
    # unless a recipe or a model names it
    by_default: bool = True

    def __post_init__(self) -> None:
        if self.written_prompts:
            _check_languages(f"task {self.name!r}: written_prompts", self.written_prompts)

    @property
    def tags(self) -> str:
        """Canonical tags, e.g. ``<TRANSCRIBE> <EMOTION>``."""
        return " ".join(f.tag for f in self.fields)

    @property
    def label_fields(self) -> list[Field]:
        """The fields answered with a label, in order."""
        return [f for f in self.fields if f.kind == "label"]

    def present(self, utterance: Utterance) -> bool:
        """Tell whether every field is known."""
        return all(f.present(utterance) for f in self.fields)

    def missing(self, utterance: Utterance) -> list[str]:
        """Return the names of the fields that are not known."""
        return [f.name for f in self.fields if not f.present(utterance)]

    def targets(self, utterance: Utterance) -> list[tuple[Field, str]]:
        """Write the target in pieces, one per field; joined without a separator they are the whole.

        Raises ValueError when a field is not known.
        """
        missing = self.missing(utterance)
        if missing:
            found = {}
            for f in self.fields:
                if f.name in missing:
                    found[f.name] = utterance.get(f.attribute)

            lacking = ", ".join(missing)
            raise ValueError(
                f"utterance {utterance.key!r} lacks {lacking} for task {self.tags} "
                f"(found {found}); filter with Task.present"
            )
        return [(f, f.write(utterance)) for f in self.fields]

    def write(self, utterance: Utterance) -> str:
        """Write the whole target. Raises ValueError when a field is not known."""
        pieces = [text for _, text in self.targets(utterance)]
        return "".join(pieces)

    def prompts(self, lang: str) -> list[str]:
        """Return the prompts in a language (zh or en); scoring uses the first.

        Raises ValueError for a language in which there is none.
        """
        if lang in self.written_prompts:
            return self.written_prompts[lang]
        if lang not in COMPOSED:
            known = ", ".join(COMPOSED)
            raise ValueError(f"prompt language {lang!r}: known are {known}")

        # Without prompts of its own, a task asks for its fields one after the other.
        phrases = [f.ask[lang] for f in self.fields]
        listed = SEPARATOR[lang].join(phrases)
        return [sentence.format(listed) for sentence in COMPOSED[lang]]

    @property
    def facts(self) -> tuple[str, ...]:
        """Return the names of what its fields are told of a recording."""
        found = []
        for f in self.fields:
            found += f.beside
        return tuple(found)

    def fill(self, prompt: str, utterance: Utterance) -> str:
        """Write into one of the prompts what the fields have to say of one utterance."""
        for f in self.fields:
            prompt = f.fill(prompt, utterance)
        return prompt

    def with_labels(self, labels: dict[str, list[str]]) -> Task:
        """Return the same task with the user's label sets, by field name.

        Spellings of labels that stay are kept. Raises ValueError as ``LabelSet`` does.
        """
        fields = []
        for f in self.fields:
            if not f.labels or f.name not in labels:
                fields.append(f)
                continue

            own = LabelSet(labels[f.name], f.labels.aliases)
            relabeled = dataclasses.replace(f, labels=own)
            fields.append(relabeled)
        return dataclasses.replace(self, fields=tuple(fields))

    def read(self, text: str) -> Reading:
        """Take an answer apart. Never raises; what does not fit is noted in ``unread``."""
        reading = Reading()
        rest = text
        fields = list(self.fields)

        # A reply is free text up to the end, so it goes first.
        if fields and fields[-1].kind == "reply":
            rest = fields.pop().take(rest, reading)

        # Labels are taken from both ends; what remains belongs to the transcript.
        while fields and fields[0].kind == "label":
            rest = _take_label(fields.pop(0), rest, "left", reading)
        while fields and fields[-1].kind == "label":
            rest = _take_label(fields.pop(), rest, "right", reading)
        if fields:
            fields[0].take(rest, reading)
        elif rest.strip():
            reading.unread["text"] = rest.strip()

        # Labels stand in the order they were asked for, not in that of reading.
        found = reading.labels
        asked = [f.name for f in self.label_fields]
        reading.labels = {name: found[name] for name in asked if name in found}
        return reading


def _take_label(label: Field, text: str, side: str, reading: Reading) -> str:
    """Read one label from an end (``left`` or ``right``) of the text and return the rest.

    A time is not a label and is left where it is.
    """
    tag = _end_tag(text, side)
    if tag is None or TIME.fullmatch(tag[1].strip()):
        end = text[:SHOWN] if side == "left" else text[-SHOWN:]
        reading.unread[label.name] = f"no tag in {end!r}"
        return text

    # A tag that is no label of the set is used up as well.
    spelling = unescape(tag[1])
    found = label.labels.find(spelling)
    if found is None:
        reading.unread[label.name] = tag[0]
    else:
        reading.labels[label.name] = found
    before = text[: tag.start()]
    after = text[tag.end() :]
    return before + after


def _end_tag(text: str, side: str) -> re.Match | None:
    """Return the tag at an end of the text, None when other text or nothing is there."""
    tags = find_tags(text)
    if not tags:
        return None
    if side == "left":
        tag = tags[0]
        outside = text[: tag.start()]
    else:
        tag = tags[-1]
        outside = text[tag.end() :]
    return None if outside.strip() else tag


COMPOSED = {
    "zh": [
        "听录音，依次写出{}。",
        "请按顺序给出{}。",
        "这段语音里，{}是什么？按此顺序回答。",
    ],
    "en": [
        "Listen and write {}, in this order.",
        "Give {} for this recording, in order.",
        "For this speech, answer in order: {}.",
    ],
}
SEPARATOR = {"zh": "、", "en": ", "}

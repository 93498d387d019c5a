"""What a task is made of: label sets, fields, and a row of fields with its prompts.

A field knows how it is written into a target, read back from an answer and asked for in a prompt. Reading takes leading
fields from the left and trailing ones from the right; the transcript is what remains. What cannot be read is kept as
"unread", never an exception: scorers count it as wrong.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

from wenet_osum.records import Utterance, Word

TIME = re.compile(r"\d+(?:\.\d*)?")  # s, inside a time tag
UNIT = re.compile(r"\\.|<((?:[^<>\\]|\\.)*)>|.", re.DOTALL)  # an escaped character, a tag, or a character
# Characters written without spaces between words: Han, kana, CJK punctuation, full-width forms.
# Hangul is no part of it: Korean puts spaces between its words.
CJK = re.compile(
    r"[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff00-\uff9f\uffe0-\uffef\U00020000-\U0003ffff]"
)


def escape(text: str) -> str:
    r"""Free text as it stands in a target: ``\``, ``<`` and ``>`` are written ``\\``, ``\<`` and ``\>``."""
    return re.sub(r"([\\<>])", r"\\\1", text)


def unescape(text: str) -> str:
    """The inverse of ``escape``; a lone backslash stays."""
    return re.sub(r"\\([\\<>])", r"\1", text)


def find_tags(text: str) -> list[re.Match]:
    """The unescaped tags of a text; group 1 is what stands between ``<`` and ``>``."""
    return [unit for unit in UNIT.finditer(text) if unit[1] is not None]


def join_words(texts: list[str]) -> str:
    """Words as running text: a space between words, none beside a Chinese or Japanese character."""
    line = ""
    for text in texts:
        glued = not line or not text or CJK.match(text[0]) or CJK.match(line[-1])
        line += text if glued else " " + text
    return line


class LabelSet:
    """Canonical labels with the spellings corpora and models use for them."""

    def __init__(self, names: list[str] | tuple[str, ...], aliases: dict[str, list[str]] | None = None) -> None:
        self.names = tuple(names)
        if len(set(map(_fold, self.names))) != len(self.names) or not self.names:
            raise ValueError(f"label set {list(names)} must hold at least one label and each once")
        bad = [n for n in self.names if re.search(r"[<>\\\n]", n) or not n.strip() or TIME.fullmatch(n)]
        if bad:
            raise ValueError(f"labels {bad} must not be empty, a number, or contain < > \\ or a line break")
        self.aliases = {name: list((aliases or {}).get(name, [])) for name in self.names}
        self._canonical = {_fold(a): name for name, spellings in self.aliases.items() for a in spellings}
        self._canonical |= {_fold(name): name for name in self.names}

    def find(self, text: object) -> str | None:
        """The canonical label of any known spelling, in either case, with or without ``< >``; None when there is none."""
        return self._canonical.get(_fold(str(text)))


def _fold(text: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", text.strip().strip("<>")).lower().split())


@dataclass
class Reading:
    """An answer taken apart. ``unread`` maps a field's name to what was found instead."""

    transcript: str | None = None
    words: list[Word] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    reply: str | None = None
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """One kind of thing a task asks for. ``tasks/fields.py`` has the four kinds."""

    name: str  # "emotion"; names it in reports, label tables and loss weights
    tag: str  # "<EMOTION>"
    attribute: str  # the label or field of an Utterance that holds it, by its name in a manifest
    metric: str  # file name in score/
    ask: dict[str, str]  # language → the phrase a composed prompt asks with
    labels: LabelSet | None = None
    kind: str = "label"  # transcript, label or reply

    def value(self, utterance: Utterance) -> object | None:
        """What the utterance holds for this field in canonical form, or None."""
        return utterance.get(self.attribute)

    def present(self, utterance: Utterance) -> bool:
        """Whether the utterance can be a target for this field."""
        return self.value(utterance) is not None

    def unknown(self, utterance: Utterance) -> str | None:
        """Give the label that the utterance holds and the label set does not know; else None."""
        return None

    def write(self, utterance: Utterance) -> str:
        """This field's piece of the target. The utterance must hold the field."""
        return f"<{self.value(utterance)}>"


@dataclass(frozen=True)
class Task:
    """A row of fields, asked for with one prompt and written in the order of the tags."""

    name: str  # "ser", or the tags when it is a free combination
    fields: tuple[Field, ...]
    written_prompts: dict[str, list[str]] = field(default_factory=dict)  # language → sentences; empty: composed from the fields

    @property
    def tags(self) -> str:
        """Canonical tags, e.g. ``<TRANSCRIBE> <EMOTION>``."""
        return " ".join(f.tag for f in self.fields)

    @property
    def label_fields(self) -> list[Field]:
        """The fields answered with a label, in order."""
        return [f for f in self.fields if f.kind == "label"]

    def present(self, utterance: Utterance) -> bool:
        """Whether every field is known."""
        return all(f.present(utterance) for f in self.fields)

    def missing(self, utterance: Utterance) -> list[str]:
        """Names of the fields that are not known."""
        return [f.name for f in self.fields if not f.present(utterance)]

    def targets(self, utterance: Utterance) -> list[tuple[Field, str]]:
        """The target in pieces, a field each; joined without a separator they are the whole target.

        Raises ValueError when a field is not known.
        """
        if missing := self.missing(utterance):
            found = {f.name: utterance.get(f.attribute) for f in self.fields if f.name in missing}
            raise ValueError(f"utterance {utterance.key!r} lacks {', '.join(missing)} for task {self.tags} (found {found}); filter with Task.present")
        return [(f, f.write(utterance)) for f in self.fields]

    def write(self, utterance: Utterance) -> str:
        """The whole target."""
        return "".join(text for _, text in self.targets(utterance))

    def prompts(self, lang: str) -> list[str]:
        """Prompts in a language (zh or en); item 0 is the one scoring uses."""
        if lang in self.written_prompts:
            return self.written_prompts[lang]
        if lang not in COMPOSED:
            raise ValueError(f"prompt language {lang!r}: known are {', '.join(COMPOSED)}")
        phrases = SEPARATOR[lang].join(f.ask[lang] for f in self.fields)
        return [sentence.format(phrases) for sentence in COMPOSED[lang]]

    def with_labels(self, labels: dict[str, list[str]]) -> Task:
        """The same task with the user's label sets, by field name; spellings of labels that stay are kept."""
        fields = tuple(
            dataclasses.replace(f, labels=LabelSet(labels[f.name], f.labels.aliases)) if f.labels and f.name in labels else f for f in self.fields
        )
        return dataclasses.replace(self, fields=fields)

    def read(self, text: str) -> Reading:
        """Take an answer apart. Never raises; what does not fit is noted in ``unread``."""
        reading = Reading()
        rest = text
        fields = list(self.fields)
        if fields and fields[-1].kind == "reply":
            rest = fields.pop().take(rest, reading)
        while fields and fields[0].kind == "label":
            rest = _take_label(fields.pop(0), rest, "left", reading)
        while fields and fields[-1].kind == "label":
            rest = _take_label(fields.pop(), rest, "right", reading)
        if fields:
            fields[0].take(rest, reading)
        elif rest.strip():
            reading.unread["text"] = rest.strip()
        reading.labels = {f.name: reading.labels[f.name] for f in self.label_fields if f.name in reading.labels}  # as asked, not as read
        return reading


def _take_label(label: Field, text: str, side: str, reading: Reading) -> str:
    """Read one label from an end of the text; return the rest. A time is not a label and is left in place."""
    tags = find_tags(text)
    tag = tags[0 if side == "left" else -1] if tags else None
    at_end = tag is not None and not (text[: tag.start()] if side == "left" else text[tag.end() :]).strip()
    if not at_end or TIME.fullmatch(tag[1].strip()):
        reading.unread[label.name] = f"no tag in {text[:40] if side == 'left' else text[-40:]!r}"
        return text
    found = label.labels.find(unescape(tag[1]))
    if found is None:
        reading.unread[label.name] = tag[0]
    else:
        reading.labels[label.name] = found
    return text[: tag.start()] + text[tag.end() :]


COMPOSED = {
    "zh": ["听录音，依次写出{}。", "请按顺序给出{}。", "这段语音里，{}是什么？按此顺序回答。"],
    "en": ["Listen and write {}, in this order.", "Give {} for this recording, in order.", "For this speech, answer in order: {}."],
}
SEPARATOR = {"zh": "、", "en": ", "}

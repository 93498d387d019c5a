"""The records that pass from room to room. This page is the map of the toolkit.

corpus → Utterance → Sample → Batch → model → Hypothesis → Score → report

Times are seconds as float, audio is 16 kHz mono float32 in [-1, 1], a frame is 10 ms of log-mel features.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # annotations only: tasks and score work without torch
    import torch
    from torch import Tensor

SAMPLE_RATE = 16000  # Hz, of all audio inside the toolkit
FRAME_S = 0.01  # s, the hop of the log-mel features


class Word(NamedTuple):
    """A word (English) or character (Chinese) with its place in the recording."""

    text: str
    start: float  # s
    end: float  # s


@dataclass
class Utterance:
    """One line of a manifest: a recording, or a segment of one, with everything known about it.

    Which labels there are is said by the tasks alone (``tasks.label_names``). A label that is not
    known has no entry; it is never replaced by a class such as ``other``.
    """

    key: str  # unique in its list; may hold dots and any script, but no white space
    wav: str  # path or URL of the audio; inside a shard the member's name
    txt: str | None = None  # transcript as written in the corpus, free of tags
    task: str | None = None  # task name or tags, when the corpus fixes one
    lang: str | None = None  # "zh", "en", …
    speaker: str | None = None
    # name of a task's label field → label in any spelling, or a number such as an age in years;
    # in a manifest each stands on the top level of its line
    labels: dict[str, str | float] = field(default_factory=dict)
    words: list[Word] | None = None  # word times in the segment's own time, s
    reply: str | None = None  # text answer to the spoken question
    start: float | None = None  # s, where the segment begins in ``wav``
    end: float | None = None  # s, where the segment ends in ``wav``
    duration: float | None = None  # s
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Leave out labels that are None. Raises ValueError for one named like a field."""
        if None in self.labels.values():
            self.labels = {name: label for name, label in self.labels.items() if label is not None}
        if not OWN_FIELDS.isdisjoint(self.labels):
            wrong = ", ".join(sorted(OWN_FIELDS.intersection(self.labels)))
            what = f"{wrong} is a field of its own; set that instead"
            raise ValueError(f"labels of {self.key!r}: {what}")

    @classmethod
    def from_dict(cls, row: dict[str, Any], labels: Collection[str] = ()) -> Utterance:
        """Read a manifest row: keys named in ``labels`` are labels, unknown ones go to ``extra``.

        Raises ValueError when key or wav are missing or words are malformed.
        """
        for name in ("key", "wav"):
            if not isinstance(row.get(name), str) or not row[name]:
                raise ValueError(f"manifest row needs a non-empty string {name!r}, got {row.get(name)!r} in {str(row)[:120]}")
        known, found, extra = {}, {}, dict(row.get("extra") or {})
        for name, value in row.items():
            if name in OWN_FIELDS:
                known[name] = value
            elif name in labels:
                found[name] = value
            elif name != "extra":
                extra[name] = value
        known = {name: value for name, value in known.items() if value is not None}
        if "words" in known:
            known["words"] = _read_words(row["key"], known["words"])
        return cls(**known, labels=found, extra=extra)

    def get(self, name: str) -> Any:
        """The field or label of this name, None when it is not known."""
        return getattr(self, name) if name in OWN_FIELDS else self.labels.get(name)

    def with_values(self, values: dict[str, Any]) -> Utterance:
        """Copy it with other values of fields and labels by name; None takes a label out."""
        own = {name: value for name, value in values.items() if name in OWN_FIELDS}
        labels = self.labels | {name: value for name, value in values.items() if name not in own}
        return dataclasses.replace(self, **own, labels=labels)

    def to_dict(self) -> dict[str, Any]:
        """The manifest row, labels on its top level, without empty entries."""
        row = {name: getattr(self, name) for name in _BEFORE_LABELS} | self.labels
        row |= {name: getattr(self, name) for name in _AFTER_LABELS}
        if self.words is not None:
            row["words"] = [[w.text, round(w.start, 3), round(w.end, 3)] for w in self.words]
        return {k: v for k, v in row.items() if v is not None and v != {}}

    def to_json(self) -> str:
        """The manifest row as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


# dataclasses.fields costs as much as all the rest of a row: their names are kept
_NAMES = tuple(Utterance.__dataclass_fields__)
_BEFORE_LABELS = _NAMES[: _NAMES.index("labels")]
_AFTER_LABELS = _NAMES[_NAMES.index("labels") + 1 :]
# the record's own fields; any other name on the top level of a row is a label or goes to ``extra``
OWN_FIELDS = frozenset(_NAMES) - {"labels", "extra"}


def _read_words(key: str, rows: Any) -> list[Word]:
    try:
        return [Word(str(text), float(start), float(end)) for text, start, end in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"words of {key!r} must be [[word, start_s, end_s], …], got {str(rows)[:80]}: {error}") from None


@dataclass
class Sample:
    """One utterance, decoded, augmented and tokenized for one task."""

    key: str
    task: str  # canonical tags, e.g. "<TRANSCRIBE> <EMOTION>"
    features: Tensor  # (frames, mels) float32
    prompt_ids: list[int]
    answer_ids: list[int]  # target tokens, the end of text included; empty when decoding
    answer_weights: list[float]  # loss weight of each answer token
    answer_labels: list[bool]  # whether each answer token belongs to a label
    targets: dict[str, Tensor] = field(default_factory=dict)  # what further losses ask for (models/losses), each (anything, …)
    utterance: Utterance | None = None
    audio_s: float = 0.0  # duration after augmentation, s
    audio: Tensor | None = None  # (samples + 400,) float32 with reflected ends, where the device makes the features: they are (frames, 0) until then
    masks: list[Any] = field(default_factory=list)  # SpecAugment of those features (dataset/augment.py)
    # With these, features are states of the encoder from disk, (states, width), and may go on into
    # silence behind the speech (dataset/states.py).
    states_after: int | None = None  # layers of the encoder below them
    state_length: int = 0  # states of the speech


@dataclass
class Batch:
    """A micro-batch. Features are padded, texts lie end to end with their lengths: padding is never recognized by value.

    Letters: B utterances, T frames of the longest, M mel bins, P prompt tokens and A answer tokens of all utterances.
    """

    keys: list[str]
    tasks: list[str]
    features: Tensor  # (B, T, M) float32, zeros after each length
    feature_lengths: Tensor  # (B,) int64, frames
    prompt_ids: Tensor  # (P,) int64
    prompt_lengths: Tensor  # (B,) int64
    answer_ids: Tensor  # (A,) int64
    answer_lengths: Tensor  # (B,) int64
    answer_weights: Tensor  # (A,) float32
    answer_labels: Tensor | None = None  # (A,) bool, the token belongs to a label
    targets: dict[str, Tensor] = field(default_factory=dict)  # of further losses: name → tensors end to end, name_lengths → (B,) int64
    utterances: list[Utterance] = field(default_factory=list)
    audio_s: list[float] = field(default_factory=list)
    audio: Tensor | None = None  # (B, samples of the longest + 400) float32, where the device makes the features: they are (B, T, 0) until then
    masks: list[list[Any]] = field(default_factory=list)  # SpecAugment of each utterance's features
    # Layers of the encoder below the features, where these are its states (B, N, width) from disk
    # and ``feature_lengths`` count states; None: they are log-mel.
    states_after: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)  # samples that could not be read, by reason
    filler: bool = False  # True: a repeat that only keeps ranks in step; its weights are zero

    def _map(self, function: Any) -> Batch:
        changes = {
            f.name: function(value) for f in dataclasses.fields(self) if hasattr(value := getattr(self, f.name), "pin_memory") and f.name != "utterances"
        }
        targets = {name: function(tensor) for name, tensor in self.targets.items()}
        return dataclasses.replace(self, **changes, targets=targets)

    def to(self, device: torch.device | str) -> Batch:
        """A copy whose tensors lie on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; the DataLoader calls this by name."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass
class Hypothesis:
    """What the model answered for one utterance; one JSON line of ``recognize``. The raw text is always kept."""

    key: str
    task: str  # canonical tags
    text: str  # raw answer, without the end of text
    transcript: str | None = None
    words: list[Word] | None = None
    labels: dict[str, str] = field(default_factory=dict)  # field name → label
    probs: dict[str, dict[str, float]] = field(default_factory=dict)  # field name → label → probability
    reply: str | None = None
    unread: dict[str, str] = field(default_factory=dict)  # field name → what could not be read, and why
    flags: list[str] = field(default_factory=list)  # "length_limit", "loop", "label_forced", "tie", …
    duration: float | None = None  # s
    pieces: list[dict[str, Any]] = field(default_factory=list)  # of audio over 30 s: start, end (s), text, labels, probs, flags of each
    error: str | None = None  # why there is no answer, e.g. "audio: file not found"

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Hypothesis:
        """Read one JSON line of ``recognize``."""
        names = cls.__dataclass_fields__
        row = {k: v for k, v in row.items() if k in names}
        if row.get("words") is not None:
            row["words"] = _read_words(row.get("key", "?"), row["words"])
        return cls(**row)

    def to_dict(self) -> dict[str, Any]:
        """The JSON row; ``text`` is always there, other empty entries are left out."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.words is not None:
            row["words"] = [[w.text, w.start, w.end] for w in self.words]
        return {k: v for k, v in row.items() if k in ("key", "task", "text") or v not in (None, {}, [])}

    def to_json(self) -> str:
        """The JSON line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


@dataclass(frozen=True)
class Metric:
    """What the values of a metric mean, for tables, plots and comparisons."""

    name: str  # "wer", "accuracy", "aas_ms", …
    title: str  # the name for people
    unit: str = "%"
    lower_is_better: bool = False
    decimals: int = 2  # digits after the point in tables
    scale: float | None = 100.0  # largest value of a scale that begins at 0; None: no end
    counts: tuple[str, ...] = ()  # entries of ``Score.detail`` that a report shows as counts
    faults: tuple[str, ...] = ()  # those of them that count what went wrong


@dataclass
class Score:
    """One value of a metric, with what it rests on."""

    task: str  # task name, e.g. "ser"
    metric: str  # "wer", "cer", "accuracy", "aas_ms", …
    value: float  # rates and accuracies in %, times in ms
    low: float  # lower end of the 95 % interval (score/bootstrap.py)
    high: float  # upper end
    count: int  # what the figure is a share of: words, characters, utterances
    utterances: int
    subset: str = "all"  # "zh", "en", … or "all"
    detail: dict[str, Any] = field(default_factory=dict)  # substitutions, confusion matrix, …
    about: Metric | None = None  # what the value means; None: in percent, the higher the better

    def __post_init__(self) -> None:
        if self.about is None:
            self.about = Metric(self.metric, self.metric.replace("_", " "))

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Score:
        """Read one entry of ``score.json``. Raises TypeError for unknown or missing entries."""
        row = {k: float("nan") if v is None and k != "about" else v for k, v in row.items()}
        about = row.pop("about", None)
        if about is not None:
            lists = {name: tuple(about.get(name, ())) for name in ("counts", "faults")}
            about = Metric(**{**about, **lists})
        return cls(**row, about=about)

"""The records that pass from room to room. This page is the map of the toolkit.

corpus → Utterance → Sample → Batch → model → Hypothesis → Score → report

Times are seconds as float, audio is 16 kHz mono float32 in [-1, 1], a frame is 10 ms of log-mel features.
"""

from __future__ import annotations

import dataclasses
import json
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

    A label that is not known is None; it is never replaced by a class such as ``other``.
    """

    key: str  # unique in its list; may hold dots and any script
    wav: str  # path or URL of the audio; inside a shard the member's name
    txt: str | None = None  # transcript as written in the corpus, free of tags
    task: str | None = None  # task name or tags, when the corpus fixes one
    lang: str | None = None  # "zh", "en", …
    speaker: str | None = None
    gender: str | None = None  # label of tasks/sgc.py
    age: str | float | None = None  # years, or a label of tasks/sap.py
    emotion: str | None = None  # label of tasks/ser.py
    style: str | None = None  # label of tasks/ssr.py
    event: str | None = None  # label of tasks/ved.py
    words: list[Word] | None = None  # word times in the segment's own time, s
    reply: str | None = None  # text answer to the spoken question
    start: float | None = None  # s, where the segment begins in ``wav``
    end: float | None = None  # s, where the segment ends in ``wav``
    duration: float | None = None  # s
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Utterance:
        """Read a manifest row; unknown keys go to ``extra``. Raises ValueError when key or wav are missing or words are malformed."""
        for name in ("key", "wav"):
            if not isinstance(row.get(name), str) or not row[name]:
                raise ValueError(f"manifest row needs a non-empty string {name!r}, got {row.get(name)!r} in {str(row)[:120]}")
        names = cls.__dataclass_fields__
        known = {k: v for k, v in row.items() if k in names and k != "extra" and v is not None}
        extra = dict(row.get("extra") or {}) | {k: v for k, v in row.items() if k not in names}
        if "words" in known:
            known["words"] = _read_words(row["key"], known["words"])
        return cls(**known, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The manifest row, without empty entries."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}  # dataclasses.fields costs as much as all the rest
        if self.words is not None:
            row["words"] = [[w.text, round(w.start, 3), round(w.end, 3)] for w in self.words]
        return {k: v for k, v in row.items() if v is not None and v != {}}

    def to_json(self) -> str:
        """The manifest row as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def _read_words(key: str, rows: Any) -> list[Word]:
    try:
        return [Word(str(text), float(start), float(end)) for text, start, end in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"words of {key!r} must be [[word, start_s, end_s], …], got {str(rows)[:80]}: {error}") from None


@dataclass
class Sample:
    """One utterance, decoded, augmented and tokenised for one task."""

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


@dataclass
class Batch:
    """A micro-batch. Features are padded, texts lie end to end with their lengths: padding is never recognised by value.

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


@dataclass
class Score:
    """One figure with what it rests on."""

    task: str  # task name, e.g. "ser"
    metric: str  # "wer", "cer", "accuracy", "aas_ms", …
    value: float  # rates and accuracies in %, times in ms
    low: float  # lower end of the bootstrap 95 % interval
    high: float  # upper end
    count: int  # what the figure is a share of: words, characters, utterances
    utterances: int
    subset: str = "all"  # "zh", "en", … or "all"
    detail: dict[str, Any] = field(default_factory=dict)  # substitutions, confusion matrix, baselines, …

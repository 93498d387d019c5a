"""The records that pass from room to room. This page is the map of the toolkit.

corpus → Utterance → Sample → Batch → model → Hypothesis → Score → report

Times are seconds as float, audio is 16 kHz mono float32 in [-1, 1], a frame is 10 ms of log-mel
features.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wenet_osum.devices import moved, pinned
from wenet_osum.turns import Turns, has_recording, named, unnamed
from wenet_osum.words import Word, read_words

if TYPE_CHECKING:  # annotations only: tasks and score work without torch
    import torch
    from torch import Tensor

SAMPLE_RATE = 16000  # Hz, of all audio inside the toolkit
FRAME_S = 0.01  # s, the hop of the log-mel features
FRAMES_PER_S = 100


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
    # name of a task's label field → label in any spelling, or a number such as an age in years, or
    # a free text that no other field holds, such as a translation;
    # in a manifest each stands on the top level of its line
    labels: dict[str, str | float] = field(default_factory=dict)
    words: list[Word] | None = None  # word times in the segment's own time, s
    reply: str | None = None  # text answer to the spoken question
    start: float | None = None  # s, where the segment begins in ``wav``
    end: float | None = None  # s, where the segment ends in ``wav``
    duration: float | None = None  # s
    prompt: str | None = None  # the user's own words, in place of the task's prompts
    # what was said before in a conversation, of which it is the last turn (turns.py); in one, wav
    # is empty where a turn has no recording
    turns: list[Utterance] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Leave out labels that are None. Raises ValueError for one named like a field."""
        # Few utterances have one, so the table is built anew only where it must be.
        if None in self.labels.values():
            known = {}
            for name, label in self.labels.items():
                if label is not None:
                    known[name] = label
            self.labels = known
        if not self.turns:
            self.turns = None

        wrong = OWN_FIELDS.intersection(self.labels)
        if wrong:
            names = ", ".join(sorted(wrong))
            fault = f"{names} is a field of its own; set that instead"
            raise ValueError(f"labels of {self.key!r}: {fault}")

    @classmethod
    def from_dict(
        cls, row: dict[str, Any], labels: Collection[str] = (), is_turn: bool = False
    ) -> Utterance:
        """Read a manifest row: keys named in ``labels`` are labels, unknown ones go to ``extra``.

        Raises ValueError when key or wav are missing or words or turns are malformed. ``wav`` may
        be missing where ``is_turn``, and where an earlier turn has one.
        """
        unspoken = is_turn or has_recording(row.get("turns"))
        needs = ("key",) if unspoken else ("key", "wav")
        for name in needs:
            value = row.get(name)
            if not isinstance(value, str) or not value:
                needed = f"manifest row needs a non-empty string {name!r}"
                where = str(row)[:120]
                raise ValueError(f"{needed}, got {value!r} in {where}")

        # Each entry goes to a field of the record, to the labels or to the rest.
        known: dict[str, Any] = {}
        found: dict[str, Any] = {}
        extra = dict(row.get("extra") or {})
        for name, value in row.items():
            if name in OWN_FIELDS:
                if value is not None:
                    known[name] = value
            elif name in labels:
                found[name] = value
            elif name != "extra":
                extra[name] = value

        if "words" in known:
            known["words"] = read_words(row["key"], known["words"])
        if known.get("turns"):
            known.setdefault("wav", "")
            rows = named(row["key"], known["turns"])
            turns = [cls.from_dict(turn, labels, is_turn=True) for turn in rows]
            known["turns"] = turns
        return cls(**known, labels=found, extra=extra)

    def recordings(self) -> list[Utterance]:
        """Return the turns that have a recording, itself among them, in their order."""
        earlier = self.turns or ()
        return [turn for turn in (*earlier, self) if turn.wav]

    def get(self, name: str) -> Any:
        """Return the field or label of this name, None when it is not known."""
        if name in OWN_FIELDS:
            return getattr(self, name)
        return self.labels.get(name)

    def with_values(self, values: dict[str, Any]) -> Utterance:
        """Copy it with other values of fields and labels by name; None takes a label out."""
        own: dict[str, Any] = {}
        labels = dict(self.labels)
        for name, value in values.items():
            if name in OWN_FIELDS:
                own[name] = value
            else:
                labels[name] = value
        return dataclasses.replace(self, **own, labels=labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest row, labels on its top level, without empty entries."""
        row: dict[str, Any] = {}
        for name in _BEFORE_LABELS:
            row[name] = getattr(self, name)
        row |= self.labels
        for name in _AFTER_LABELS:
            row[name] = getattr(self, name)

        if self.words is not None:
            row["words"] = [
                [word.text, round(word.start, 3), round(word.end, 3)] for word in self.words
            ]
        if self.turns is not None:
            row["turns"] = [unnamed(turn.to_dict()) for turn in self.turns]
        return {name: value for name, value in row.items() if value is not None and value != {}}

    def to_json(self) -> str:
        """Write the manifest row as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


# dataclasses.fields costs as much as all the rest of a row: their names are kept.
_NAMES = tuple(Utterance.__dataclass_fields__)
_BEFORE_LABELS = _NAMES[: _NAMES.index("labels")]
_AFTER_LABELS = _NAMES[_NAMES.index("labels") + 1 :]
# The record's own fields; any other name on the top level of a row is a label or goes to ``extra``.
OWN_FIELDS = frozenset(_NAMES) - {"labels", "extra"}


@dataclass
class Sample:
    """One utterance, decoded, augmented and tokenized for one task."""

    key: str
    task: str  # canonical tags, e.g. "<TRANSCRIBE> <EMOTION>"
    features: Tensor  # (frames, mels) float32
    prompt_ids: list[int]
    answer_ids: list[int]  # target tokens, the end included; empty when decoding
    answer_weights: list[float]  # loss weight of each answer token
    answer_labels: list[bool]  # whether each answer token belongs to a label
    answer_transcripts: list[bool]  # the same of a transcript
    # what further losses ask for (models/losses), by name; the first axis of each is free
    targets: dict[str, Tensor] = field(default_factory=dict)
    utterance: Utterance | None = None
    audio_s: float = 0.0  # duration after augmentation, s
    # (samples + 400,) float32 with reflected ends, where the device computes the features;
    # ``features`` are (frames, 0) until it does
    audio: Tensor | None = None
    # SpecAugment masks of those features (dataset/augment.py)
    masks: list[Any] = field(default_factory=list)
    # With these, features are states of the encoder from disk, (states, width), and may go on into
    # silence behind the speech (dataset/states.py).
    states_after: int | None = None  # layers of the encoder below them
    state_length: int = 0  # states of the speech
    # token ids between speech and answer, the same for every sample of a template (text/chat.py);
    # none behind a turn that nobody answered
    suffix_ids: list[int] = field(default_factory=list)
    # what was said before in a conversation; one without a recording has (0, 0) features
    turns: list[Sample] = field(default_factory=list)


@dataclass
class Batch:
    """A micro-batch. Features are padded, texts lie end to end with their lengths.

    Padding is therefore never recognized by value.
    Letters: B utterances, T frames of the longest, M mel bins, P prompt tokens and A answer tokens
    of all utterances, U suffix tokens. With conversations (``turns``), texts have a length for each
    turn, and features and targets a row for each recording.
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
    answer_transcripts: Tensor | None = None  # (A,) bool, the same of a transcript
    # (U,) int64, stand behind the speech of every utterance; None: nothing does
    suffix_ids: Tensor | None = None
    # targets of further losses: name → tensors end to end, name_lengths → (B,) int64
    targets: dict[str, Tensor] = field(default_factory=dict)
    utterances: list[Utterance] = field(default_factory=list)
    audio_s: list[float] = field(default_factory=list)
    # (B, samples of the longest + 400) float32, where the device computes the features;
    # ``features`` are (B, T, 0) until it does
    audio: Tensor | None = None
    # SpecAugment masks of each utterance's features
    masks: list[list[Any]] = field(default_factory=list)
    # Layers of the encoder below the features, where these are its states (B, N, width) from disk
    # and ``feature_lengths`` count states; None: they are log-mel.
    states_after: int | None = None
    turns: Turns | None = None  # None: no utterance has more than its own
    dropped: dict[str, int] = field(default_factory=dict)  # samples not read, by reason
    filler: bool = False  # True: a repeat that only keeps ranks in step; its weights are zero

    def answer_counts(self) -> Tensor:
        """Return the answer tokens of each utterance, those of its turns together: (B,), on the
        CPU."""
        lengths = self.answer_lengths.cpu()
        if self.turns is None:
            return lengths
        return self.turns.sum_turns(lengths)

    def recording_tasks(self, tasks: list[str] | None = None) -> list[str]:
        """Return the task that each recording is heard for: what its turn is asked; the last turns
        are asked ``tasks``, by default those of the batch."""
        tasks = tasks or self.tasks
        if self.turns is None:
            return tasks
        return self.turns.recording_tasks(tasks)

    def _map(self, function: Callable[..., Tensor], *rest: Any) -> Batch:
        """Return a copy with ``function`` applied to every name and tensor."""
        tensors = {}
        for name, value in vars(self).items():
            if hasattr(value, "pin_memory"):
                tensors[name] = function(name, value, *rest)

        targets = {}
        for name, tensor in self.targets.items():
            targets[name] = function(name, tensor, *rest)
        return dataclasses.replace(self, **tensors, targets=targets)

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on ``device``; lengths and times stay on the CPU, where they are read."""
        return self._map(moved, device)

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory; the DataLoader calls this by name."""
        return self._map(pinned)


@dataclass
class Hypothesis:
    """A model's answer to one utterance: one JSON line of ``recognize``.

    The raw text is always kept.
    """

    key: str
    task: str  # canonical tags
    text: str  # raw answer, without its end
    transcript: str | None = None
    words: list[Word] | None = None
    labels: dict[str, str] = field(default_factory=dict)  # field name → label
    # field name → label → probability
    probs: dict[str, dict[str, float]] = field(default_factory=dict)
    reply: str | None = None
    # field name → what could not be read, and why
    unread: dict[str, str] = field(default_factory=dict)
    # "length_limit", "loop", "times", "label_forced", "tag_cut", "tie", …
    flags: list[str] = field(default_factory=list)
    duration: float | None = None  # s
    # start and end (s), text, labels, probs and flags of each piece of audio over 30 s
    pieces: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None  # why there is no answer, e.g. "audio: file not found"
    # free texts of fields that have none of their own here, such as a translation, by field name
    texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Hypothesis:
        """Read one JSON line of ``recognize``."""
        known = {}
        for name, value in row.items():
            if name in cls.__dataclass_fields__:
                known[name] = value

        words = known.get("words")
        if words is not None:
            key = known.get("key", "?")
            known["words"] = read_words(key, words)
        return cls(**known)

    def free_texts(self) -> dict[str, str]:
        """Return the reply and the other free texts by name, as far as there are any."""
        if self.reply is None:
            return self.texts
        return {"reply": self.reply, **self.texts}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON row; ``text`` is always there, other empty entries are left out."""
        row = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name in _ALWAYS_WRITTEN or value not in (None, {}, []):
                row[entry.name] = value

        if self.words:
            row["words"] = [[*word] for word in self.words]
        return row

    def to_json(self) -> str:
        """Write the JSON line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


_ALWAYS_WRITTEN = ("key", "task", "text")


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric's values, for tables, plots and comparisons."""

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
            title = self.metric.replace("_", " ")
            self.about = Metric(self.metric, title)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Score:
        """Read one entry of ``score.json``. Raises TypeError for unknown or missing entries."""
        entries = dict(row)
        about = entries.pop("about", None)
        if about is not None:
            counts = tuple(about.get("counts", ()))
            faults = tuple(about.get("faults", ()))
            about = Metric(**(about | {"counts": counts, "faults": faults}))

        # JSON has no NaN; a value that does not exist is written as null.
        for name, value in entries.items():
            if value is None:
                entries[name] = float("nan")
        return cls(**entries, about=about)

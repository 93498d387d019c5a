"""Batched decoding: features in, one Hypothesis per utterance out, the same in any batch.

Every row walks through the fields of its task on its own (constrain.py). The model advances all rows by one token at a time;
finished rows leave the batch. Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.dataset.drop import Drop
from wenet_osum.decode.constrain import AnswerState, Choice
from wenet_osum.decode.joint import Joint, Rescorers
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import LLMPrompts, Prefixes
from wenet_osum.decode.stops import LoopGuard, limit
from wenet_osum.decode.whisper_prefix import WhisperPrompts
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Hypothesis
from wenet_osum.tasks.base import Task

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

Prompts = LLMPrompts | WhisperPrompts
TIE = 1e-4  # logits closer than this may swap between batch sizes: such steps are counted


@dataclass
class Row:
    """One answer in the making."""

    key: str
    answer_state: AnswerState
    audio_s: float
    max_tokens: int | None = None
    guard: LoopGuard = field(default_factory=LoopGuard)
    queue: list[int] = field(default_factory=list)  # tokens already in the answer that the model has yet to be fed
    choice: Choice | None = None  # a label to be chosen now
    probs: dict[str, dict[str, float]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    draws: torch.Generator | None = None  # of sampling
    joint: Joint | None = None  # what rescorers know of the answer, in joint decoding
    room: int | None = None  # most tokens the model has positions for, labels yet to come left out

    def flag(self, name: str) -> None:
        """Note a flag once."""
        if name not in self.flags:
            self.flags.append(name)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to say or to choose."""
        return self.answer_state.done and self.choice is None

    def take(self, token: int) -> None:
        """Take the model's next token; leaves a token in the queue or a label to choose, or ends the row."""
        if self.joint:
            self.joint = self.joint.advance(self.answer_state, token)
        self.choice = self.answer_state.step(token)
        if self.choice is None and not self.answer_state.done:
            self.queue.append(token)
            self._stop_if_needed(token)

    def _stop_if_needed(self, token: int) -> None:
        looped = self.guard.add(token)
        full = len(self.guard.ids) >= (self.max_tokens or limit(self.answer_state.stretch, self.audio_s))
        full |= self.room is not None and len(self.answer_state.ids) >= self.room
        if looped or full:
            self.flag("loop" if looped else "length_limit")
            self.choice = self.answer_state.end()
            if self.choice:
                self.choice.forced = True
        # the token in the queue is fed first; the choice waits for it

    def decide(self, scores: list[float]) -> bool:
        """Write the likeliest label, by the log-probabilities of the set; True when the best two lie within 1e-4."""
        labels = list(self.choice.continuations)
        probs = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
        best = max(range(len(labels)), key=scores.__getitem__)
        self.probs[self.choice.field.name] = dict(zip(labels, probs, strict=True))
        if self.choice.forced:
            self.flag("label_forced")
        self.queue += self.answer_state.take_label(self.choice, labels[best])
        self.choice, self.guard = None, LoopGuard()
        ranked = sorted(scores)
        return len(ranked) > 1 and ranked[-1] - ranked[-2] <= TIE


def generate(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    tasks: list[Task] | None = None,
    options: DecodeOptions | None = None,
    counts: Counter | None = None,
) -> list[Hypothesis]:
    """Answer every utterance of a batch; the answers do not depend on which others are in it (float32, ties apart).

    ``tasks`` are those of the rows; without it ``batch.tasks``. ``counts`` collects ``steps``, ``ties`` and the flags.
    """
    options, counts = options or DecodeOptions(), Counter() if counts is None else counts
    tasks = tasks or [template.task(name) for name in batch.tasks]
    rows = [make_row(template, *pair, options) for pair in zip(batch.keys, tasks, (batch.feature_lengths * FRAME_S).tolist(), strict=True)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = batch.to(next(model.parameters()).device)
            answer(_prompts(model, template, batch, rows, options), rows, options, counts)
    finally:
        model.train(training)
    counts.update(flag for row in rows for flag in row.flags)
    return [hypothesis(row, template) for row in rows]


def _prompts(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    rows: list[Row],
    options: DecodeOptions,
) -> Prompts:
    """Return what stands before the answers of ``rows``."""
    if isinstance(model, WhisperPhase):
        for row, prompt in zip(rows, batch.prompt_lengths.tolist(), strict=True):
            row.room = _room(model, template, row.answer_state.task, prompt)
        return WhisperPrompts(model, batch)
    speech, lengths = model.padded_speech(batch.features, batch.feature_lengths)
    if options.joint:
        rescorers = Rescorers(model, template, options.joint)
        for row, states, length in zip(rows, speech, lengths.tolist(), strict=True):
            row.joint = rescorers.begin(states[:length])
    embeds, mask = model.prompts_with(speech, lengths, batch.prompt_ids, batch.prompt_lengths)
    return LLMPrompts(model.llm, embeds, mask)


def _room(model: WhisperPhase, template: Template, task: Task, prompt: int) -> int:
    """Return how many answer tokens a decoder of fixed length can hold before the labels that may
    still have to come. Raises Drop when the prompt leaves none."""
    labels = [template.label_ids(field).values() for field in task.label_fields]
    reserved = sum(max(len(ids) for ids in of_field) for of_field in labels)
    reach = model.config.max_target_positions
    room = reach - 1 - prompt - reserved
    if room < 1:
        raise Drop("prompt too long", f"{prompt} tokens, the Whisper decoder reaches {reach}")
    return room


def make_row(template: Template, key: str, task: Task, audio_s: float, options: DecodeOptions) -> Row:
    """Begin an answer."""
    row = Row(key, AnswerState(template, task, options.free), audio_s, options.max_tokens)
    if options.temperature:
        digest = hashlib.sha256(f"{options.seed} {key}".encode()).digest()
        row.draws = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return row


def answer(prompts: Prompts, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Complete the rows, which go on from ``prompts``."""
    if options.num_beams == 1:
        every = [*range(len(rows))]
        complete(prompts.prefixes(every, [[] for _ in rows]), rows, options, counts)
        return
    from wenet_osum.decode.beam import alternate

    alternate(prompts, rows, options, counts)


def complete(prefixes: Prefixes, rows: list[Row], options: DecodeOptions, counts: Counter, labels_only: bool = False) -> None:
    """Complete the rows one token a step; anything with the ``logits``, ``feed``, ``keep`` and ``score`` of Prefixes will do.

    With ``labels_only`` a row also leaves where free text would begin.
    """
    live = rows
    while True:
        waiting = [i for i, row in enumerate(live) if not row.queue and row.choice is None and (row.answer_state.at_label or not labels_only)]
        for i, token in zip(waiting, pick(prefixes.logits, live, waiting, options, counts), strict=True):
            live[i].take(token)
        choose(prefixes, live, counts)
        stay = [i for i, row in enumerate(live) if not row.finished and (row.queue or row.choice)]
        if not stay:
            break
        if len(stay) < len(live):
            live = [live[i] for i in stay]
            prefixes.keep(stay)
        prefixes.feed([row.queue.pop(0) for row in live])
    for row in rows:
        row.queue.clear()


def choose(prefixes: Prefixes, live: list[Row], counts: Counter) -> None:
    """Settle the labels whose turn has come, all of them in one scoring pass."""
    asking = [i for i, row in enumerate(live) if row.choice and not row.queue]
    if not asking:
        return
    scores = prefixes.score(asking, [list(live[i].choice.continuations.values()) for i in asking])
    for i, values in zip(asking, scores, strict=True):
        counts["steps"] += 1
        if live[i].decide(values):
            counts["ties"] += 1
            live[i].flag("tie")


def pick(logits: Tensor, live: list[Row], waiting: list[int], options: DecodeOptions, counts: Counter) -> list[int]:
    """The next token of each waiting row: the likeliest, or drawn. ``logits`` (B, V) are those of all live rows."""
    if not waiting:
        return []
    logits = penalize(logits[waiting], [live[i].guard.ids for i in waiting], options.repetition_penalty)
    if options.temperature:
        return [draw(row_logits, live[i].draws, options.temperature) for i, row_logits in zip(waiting, logits, strict=True)]
    if options.joint:
        logits = torch.stack([live[i].joint.scores(live[i].answer_state, row) for i, row in zip(waiting, logits, strict=True)])
    (best, second), tokens = logits.topk(2, dim=1).values.unbind(1), logits.argmax(1).tolist()
    for i, tied in zip(waiting, (best - second <= TIE).tolist(), strict=True):
        if not live[i].answer_state.at_label:
            counts["steps"] += 1
            if tied:
                counts["ties"] += 1
                live[i].flag("tie")
    return tokens


def penalize(logits: Tensor, said: list[list[int]], penalty: float) -> Tensor:
    """Make tokens already said less likely (Keskar et al., 2019, arXiv 1909.05858)."""
    if penalty == 1.0:
        return logits
    logits = logits.clone()
    for row, ids in zip(logits, said, strict=True):
        index = torch.tensor(sorted(set(ids)), device=logits.device, dtype=torch.long)
        row[index] = torch.where(row[index] > 0, row[index] / penalty, row[index] * penalty)
    return logits


def draw(logits: Tensor, draws: torch.Generator, temperature: float) -> int:
    """A token drawn by inverting the cumulative distribution at a number that depends on the row's key alone."""
    sums = (logits.double() / temperature).softmax(-1).cumsum(-1)
    point = torch.rand((), generator=draws, dtype=torch.float64).item() * sums[-1].item()
    return min(int((sums <= point).sum()), len(logits) - 1)


def hypothesis(row: Row, template: Template) -> Hypothesis:
    """The finished row, its text taken apart by the task."""
    task, text = row.answer_state.task, template.decode(row.answer_state.ids)
    reading = task.read(text)
    labels = reading.labels | {name: max(p, key=p.get) for name, p in row.probs.items()}
    unread = {name: found for name, found in reading.unread.items() if name not in row.probs}
    return Hypothesis(
        key=row.key,
        task=task.tags,
        text=text,
        transcript=reading.transcript,
        words=reading.words,
        labels=labels,
        probs=row.probs,
        reply=reading.reply,
        unread=unread,
        flags=row.flags,
        duration=round(row.audio_s, 3),
    )

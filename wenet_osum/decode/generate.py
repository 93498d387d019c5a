"""Batched decoding: features in, one Hypothesis per utterance out, the same in any batch.

Every row walks through the fields of its task on its own (constrain.py), by greedy search or
sampling (greedy.py) or by beam search (beam.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import torch

from wenet_osum.dataset.drop import Drop
from wenet_osum.decode.beam import alternate
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.greedy import complete
from wenet_osum.decode.joint import Rescorers
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import LLMPrompts, Prompts
from wenet_osum.decode.progress import SPEECH_S, SPEECH_TOKENS
from wenet_osum.decode.row import Row
from wenet_osum.decode.whisper_prefix import WhisperPrompts
from wenet_osum.models import shrink
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Hypothesis
from wenet_osum.tasks.base import Task

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template


def generate(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    tasks: list[Task] | None = None,
    options: DecodeOptions | None = None,
    counts: Counter | None = None,
) -> list[Hypothesis]:
    """Answer every utterance of a batch; the answers do not depend on which others are in it (float32, ties apart).

    ``tasks`` are those of the rows; without it ``batch.tasks``. ``counts`` collects ``steps``, ``ties``, speech tokens and seconds, and the flags.
    """
    options, counts = options or DecodeOptions(), Counter() if counts is None else counts
    tasks = tasks or [template.task(name) for name in batch.tasks]
    rows = [make_row(template, *pair, options) for pair in zip(batch.keys, tasks, (batch.feature_lengths * FRAME_S).tolist(), strict=True)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = batch.to(next(model.parameters()).device)
            answer(_prompts(model, template, batch, rows, options, counts), rows, options, counts)
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
    counts: Counter,
) -> Prompts:
    """Return what stands before the answers of ``rows``. ``counts`` collects speech tokens and seconds."""
    if isinstance(model, WhisperPhase):
        for row, prompt in zip(rows, batch.prompt_lengths.tolist(), strict=True):
            row.room = _room(model, template, row.answer_state.task, prompt)
        return WhisperPrompts(model, batch)
    states, lengths = model.ctc_states(batch.features, batch.feature_lengths)
    if options.joint:
        rescorers = Rescorers(model, template, options.joint)
        for row, own, length in zip(rows, states, lengths.tolist(), strict=True):
            row.joint = rescorers.begin(own[:length])
    tasks = [row.answer_state.task.tags for row in rows]
    speech, lengths = shrink.heard(model, states, lengths, tasks)
    counts[SPEECH_TOKENS] += int(lengths.sum())
    counts[SPEECH_S] += float(batch.feature_lengths.sum()) * FRAME_S
    asked = (batch.prompt_ids, batch.prompt_lengths, batch.suffix_ids)
    embeds, mask = model.prompts_with(speech, lengths, *asked)
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
    alternate(prompts, rows, options, counts)


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

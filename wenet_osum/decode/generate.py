"""Batched decoding: features in, one Hypothesis per utterance out, the same in any batch.

Every row walks through the fields of its task on its own (constrain.py), by greedy search or
sampling (greedy.py) or by beam search (beam.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from wenet_osum.dataset.drop import Drop
from wenet_osum.decode import attention_rescoring, ctc_draft, prefix_text
from wenet_osum.decode.beam import beam_search
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.counts import SPEECH_S, SPEECH_TOKENS
from wenet_osum.decode.greedy import greedy_search
from wenet_osum.decode.joint import Rescorers
from wenet_osum.decode.modes import ATTENTION, ATTENTION_RESCORING
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import LLMPrompts, Prefixes, Prompts
from wenet_osum.decode.row import Row
from wenet_osum.decode.static_prefix import StaticPrefixes
from wenet_osum.decode.whisper_prefix import WhisperPrompts
from wenet_osum.models.label_queries import split_front
from wenet_osum.models.layout import Question
from wenet_osum.models.llm_speech import speech_for_llm
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Hypothesis
from wenet_osum.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

# flag: the model opened a tag that was not asked for, where its answer was ended
TAG_CUT = "tag_cut"


def generate(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    tasks: list[Task] | None = None,
    options: DecodeOptions | None = None,
    counts: Counter | None = None,
) -> list[Hypothesis]:
    """Answer every utterance of a batch.

    In float32 the answers do not depend on which others are in it, ties apart. ``tasks`` are those
    of the rows; without it ``batch.tasks``. ``counts`` collects ``steps``, ``ties`` and the flags.
    """
    options = options or DecodeOptions()
    if counts is None:
        counts = Counter()
    tasks = tasks or [template.task(name) for name in batch.tasks]
    rows = make_rows(template, batch, tasks, options)
    with in_eval_mode(model):
        batch = batch.to(device_of(model))
        prompts = _prompts(model, template, batch, rows, options, counts)
        if options.prefix_text:
            prefix_text.begin(rows, template, options)
        answer(prompts, rows, options, counts)
    return finish(rows, template, counts)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Run the body without gradients and dropout; a model in training goes on training after it."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device


def finish(rows: list[Row], template: Template, counts: Counter) -> list[Hypothesis]:
    """Turn finished rows into answers, and add their flags to ``counts``."""
    answers = []
    for row in rows:
        if row.answer_state.cut:
            row.flag(TAG_CUT)
        counts.update(row.flags)
        answers.append(hypothesis(row, template))
    return answers


def _prompts(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    rows: list[Row],
    options: DecodeOptions,
    counts: Counter,
) -> Prompts:
    """Return what stands before the answers of ``rows``; ``counts`` collects tokens and seconds of
    speech."""
    if isinstance(model, WhisperPhase):
        prompt_lengths = batch.prompt_lengths.tolist()
        for row, prompt in zip(rows, prompt_lengths, strict=True):
            row.room = _room(model, template, row.answer_state.task, prompt)
        prompts = WhisperPrompts(model, batch)
        _draft(model, template, prompts.states, prompts.lengths, rows, options, counts)
        return prompts

    # Rescorers hear all states; the LLM hears fewer where the adapter shrinks.
    adapted, adapted_lengths = model.adapted(batch.features, batch.feature_lengths)
    front, states, lengths = split_front(model.adapter, adapted, adapted_lengths)
    own_states = states
    own_lengths = lengths
    if batch.turns is not None:
        # What CTC hears of a conversation is its last recording.
        last = batch.turns.last_recordings()
        own_states = states[last.to(states.device)]
        own_lengths = lengths[last]
        front = front[last.to(front.device)]
    if options.joint:
        rescorers = Rescorers(model, template, options.joint)
        utterances = zip(rows, own_states, own_lengths.tolist(), front, strict=True)
        for row, padded, length, own_front in utterances:
            own = padded[:length]
            row.joint = rescorers.begin(own, own_front)
    _draft(model, template, own_states, own_lengths, rows, options, counts)
    asked = [row.answer_state.task.tags for row in rows]
    tasks_heard = batch.recording_tasks(asked)
    speech, lengths = speech_for_llm(model, adapted, adapted_lengths, tasks_heard)

    counts[SPEECH_TOKENS] += int(lengths.sum())
    counts[SPEECH_S] += float(batch.feature_lengths.sum()) * FRAME_S
    question = Question.of(batch)
    embeds, mask = model.prompts_with(speech, lengths, question)
    kind = StaticPrefixes if options.static_cache else Prefixes
    return LLMPrompts(model.llm, embeds, mask, kind)


def _draft(
    model: OsumModel | WhisperPhase,
    template: Template,
    states: Tensor,
    lengths: Tensor,
    rows: list[Row],
    options: DecodeOptions,
    counts: Counter,
) -> None:
    """Let CTC propose transcripts from its states (B, N, D) of ``lengths`` (B,), where asked to."""
    rescoring = options.mode == ATTENTION_RESCORING
    if not options.ctc_draft and not rescoring:
        return
    pairs = zip(states, lengths.tolist(), strict=True)
    own = [padded[:length] for padded, length in pairs]
    classes = model.speech_classes()
    if rescoring:
        attention_rescoring.propose(rows, own, classes, template, options)
        return
    ctc_draft.propose(rows, own, classes, template, options.trust_ctc)
    counts[ctc_draft.TRUSTED] += sum(row.trusted for row in rows)


def _room(model: WhisperPhase, template: Template, task: Task, prompt: int) -> int:
    """Return how many answer tokens a decoder of fixed length can hold.

    Room is left for the labels that may still have to come. Raises Drop when the prompt leaves
    none.
    """
    reserved = 0
    for field in task.label_fields:
        sizes = map(len, template.label_ids(field).values())
        reserved += max(sizes)
    reach = model.config.max_target_positions
    room = reach - 1 - prompt - reserved
    if room < 1:
        raise Drop("prompt too long", f"{prompt} tokens, the Whisper decoder reaches {reach}")
    return room


def make_rows(
    template: Template, batch: Batch, tasks: list[Task], options: DecodeOptions
) -> list[Row]:
    """Begin the answer of every utterance of a batch."""
    seconds = batch.feature_lengths * FRAME_S
    if batch.turns is not None:
        seconds = batch.turns.sum_recordings(seconds)
    rows = []
    for key, task, audio_s in zip(batch.keys, tasks, seconds.tolist(), strict=True):
        row = make_row(template, key, task, audio_s, options)
        rows.append(row)
    return rows


def make_row(
    template: Template, key: str, task: Task, audio_s: float, options: DecodeOptions
) -> Row:
    """Begin the answer of one utterance."""
    state = AnswerState(template, task, options.free)
    row = Row(key, state, audio_s, options.max_tokens)
    row.watch()
    if options.temperature:
        row.draws = _draws(options.seed, key)
    return row


def _draws(seed: int, key: str) -> torch.Generator:
    """Return random numbers that depend on the seed and the key alone."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    # 63 bits, which torch takes as a seed.
    number = int.from_bytes(digest[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


def answer(prompts: Prompts, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Complete the rows, which go on from ``prompts``."""
    if options.num_beams > 1 and options.mode == ATTENTION:
        beam_search(prompts, rows, options, counts)
        return
    every = list(range(len(rows)))
    given = [row.given for row in rows]
    prefixes = prompts.prefixes(every, given)
    attention_rescoring.choose(prefixes, rows, options, counts)
    greedy_search(prefixes, rows, options, counts)


def hypothesis(row: Row, template: Template) -> Hypothesis:
    """Return the finished row, its text taken apart by the task."""
    task = row.answer_state.task
    text = template.decode(row.answer_state.ids)
    reading = task.read(text)

    # Labels that were chosen out of their set are known without reading.
    labels, unread = dict(reading.labels), dict(reading.unread)
    for name, probs in row.probs.items():
        labels[name] = max(probs, key=probs.get)
        unread.pop(name, None)
    return Hypothesis(
        key=row.key,
        task=task.tags,
        text=text,
        transcript=reading.transcript,
        words=reading.words,
        labels=labels,
        probs=row.probs,
        reply=reading.reply,
        texts=reading.texts,
        unread=unread,
        flags=row.flags,
        duration=round(row.audio_s, 3),
    )

"""Answers of CTC alone: the best path of its classes, repeats and blanks taken out
(ctc_greedy_search), or the likeliest text (ctc_prefix_beam_search).

It answers for models that were trained with the loss ``ctc``: from the adapter's output without the
LLM (kind osum), or from the encoder (kind whisper). A transcript can be had so, and labels of the
fields that an adapter has queries for and the loss ``labels`` has trained.

Letters: N states, F label fields, D width, C classes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode.ctc_beam import prefix_beam_search
from wenet_osum.decode.ctc_draft import best_path
from wenet_osum.decode.generate import device_of, finish, in_eval_mode, make_rows
from wenet_osum.decode.heard_labels import HeardLabels
from wenet_osum.decode.joint import check_training
from wenet_osum.decode.modes import CTC_GREEDY_SEARCH
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.row import TIE, Row
from wenet_osum.models.label_queries import split_front
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Batch, Hypothesis

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.tasks.base import Task
    from wenet_osum.text.template import Template

# What CTC hears.
HEARD = "<TRANSCRIBE>"


def refusal(task: Task, mode: str, fields: tuple[str, ...] = ()) -> str | None:
    """Return why a task cannot be answered without the LLM; None if it can.

    ``mode`` is the one that was asked for, ``fields`` are the label fields that the model hears
    (decode/heard_labels.py).
    """
    beyond = []
    for field in task.fields:
        if field.tag != HEARD and field.name not in fields:
            beyond.append(field.tag)
    if not beyond:
        return None
    labels = ", ".join(fields) or "no label"
    return (
        f"mode {mode} answers {HEARD} and, with this model, {labels}, "
        f"not {task.tags}; use mode attention"
    )


def check_model(model: OsumModel | WhisperPhase, asking: str) -> None:
    """Raise ValueError for a model that was not trained with CTC; ``asking`` is the option that
    needs it."""
    if isinstance(model, WhisperPhase):
        # Without a CTC head it refuses any state.
        state = torch.zeros(1, model.config.d_model, device=model.device)
        model.token_logits(state)
    else:
        check_training(asking, ("ctc",), model.config.losses)


def generate(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    options: DecodeOptions,
    counts: Counter,
) -> list[Hypothesis]:
    """Answer every utterance of a batch. ``counts`` collects ``steps``, ``ties`` and the flags."""
    tasks = [template.task(name) for name in batch.tasks]
    rows = make_rows(template, batch, tasks, options)
    with in_eval_mode(model):
        device = device_of(model)
        batch = batch.to(device)
        front, states, lengths = ctc_inputs(model, batch.features, batch.feature_lengths)
        head = model.speech_classes()
        labels = HeardLabels(model, template)
        sizes = lengths.tolist()
        for number, row in enumerate(rows):
            # Its own states alone: what surrounds it in the batch cannot matter.
            length = sizes[number]
            own = states[number, :length]
            logits = head.logits(own)
            if options.mode == CTC_GREEDY_SEARCH:
                _count_ties(row, logits, counts)
                classes = best_path(logits, head.blank)
            else:
                classes = _likeliest(row, logits, head.blank, options.ctc_beams, counts)
            transcript = head.token_ids(classes)
            probs = {}
            if labels.names:
                probs = labels.probs(front[number])
            _write(row, transcript, probs)
    return finish(rows, template, counts)


def ctc_inputs(
    model: OsumModel | WhisperPhase, features: Tensor, lengths: Tensor
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the embeddings of label fields (B, F, D), None where there are none, the states that
    CTC reads (B, N, D), and their lengths (B,).

    ``features`` are (B, frames, mels) with ``lengths`` (B,).
    """
    if isinstance(model, WhisperPhase):
        return None, *model.encoder(features, lengths)
    return split_front(model.adapter, *model.adapted(features, lengths))


def _count_ties(row: Row, logits: Tensor, counts: Counter) -> None:
    """Count the states whose best class of ``logits`` (N, C) might be another in other batches."""
    top = logits.topk(2, dim=-1)
    first, second = top.values.unbind(-1)
    close = first - second <= TIE
    ties = int(close.sum())
    counts["steps"] += len(logits)
    counts["ties"] += ties
    if ties:
        row.flag("tie")


def _likeliest(
    row: Row, logits: Tensor, blank: int, beams: int, counts: Counter
) -> list[int]:
    """Return the likeliest classes by prefix beam search over ``logits`` (N, C), and count whether
    the next ones might be theirs in other batches."""
    (best, log_prob), *others = prefix_beam_search(logits, blank, beams)
    counts["steps"] += len(logits)
    if others and log_prob - others[0][1] <= TIE:
        counts["ties"] += 1
        row.flag("tie")
    return best


def _write(row: Row, transcript: list[int], probs: dict[str, dict[str, float]]) -> None:
    """Write transcript and likeliest labels into a row, in the order of its task."""
    state = row.answer_state
    state.free = False  # there is nothing but the sets of labels
    for field in state.task.fields:
        if field.kind != "label":
            state.ids += transcript
            continue
        choice = state.end()
        own = probs[field.name]
        row.probs[field.name] = own
        likeliest = max(own, key=own.get)
        state.take_label(choice, likeliest)

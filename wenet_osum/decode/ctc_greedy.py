"""CTC greedy search: the best path of the CTC classes, repeats and blanks taken out.

It answers for models that were trained with the loss ``ctc``: from the adapter's output without the
LLM (kind osum), or from the encoder (kind whisper). Only a transcript can be had so.

Letters: N states, D width, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode.ctc_draft import best_path
from wenet_osum.decode.generate import device_of, finish, in_eval_mode, make_rows
from wenet_osum.decode.joint import check_training
from wenet_osum.decode.options import CTC_GREEDY_SEARCH, DecodeOptions
from wenet_osum.decode.row import TIE, Row
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Batch, Hypothesis

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.tasks.base import Task
    from wenet_osum.text.template import Template

# The task.
ANSWERED = "<TRANSCRIBE>"


def refusal(task: Task) -> str | None:
    """Return why CTC cannot answer a task; None if it can."""
    if task.tags == ANSWERED:
        return None
    return (
        f"mode {CTC_GREEDY_SEARCH} hears words only and answers {ANSWERED}, "
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
        states, lengths = model.ctc_states(batch.features, batch.feature_lengths)
        head = model.speech_classes()
        for row, of_row, length in zip(rows, states, lengths.tolist(), strict=True):
            # Its own states alone: what surrounds it in the batch cannot matter.
            own = of_row[:length]
            logits = head.logits(own)
            _decide(row, logits, head.blank, head.token_ids, counts)
    return finish(rows, template, counts)


def _decide(
    row: Row,
    logits: Tensor,
    blank: int,
    token_ids: Callable[[list[int]], list[int]],
    counts: Counter,
) -> None:
    """Write the best path of ``logits`` (N, C) into a row."""
    top = logits.topk(2, dim=-1)
    first, second = top.values.unbind(-1)
    close = first - second <= TIE
    ties = int(close.sum())
    counts["steps"] += len(logits)
    counts["ties"] += ties
    if ties:
        row.flag("tie")

    classes = best_path(logits, blank)
    row.answer_state.ids = token_ids(classes)

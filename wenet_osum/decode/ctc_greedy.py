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

from wenet_osum.decode.generate import hypothesis, make_row
from wenet_osum.decode.joint import check_training
from wenet_osum.decode.options import CTC_GREEDY_SEARCH, DecodeOptions
from wenet_osum.decode.row import TIE, Row
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Hypothesis

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.tasks.base import Task
    from wenet_osum.text.template import Template

ANSWERED = "<TRANSCRIBE>"  # the task


def refusal(task: Task) -> str | None:
    """Say why a task cannot be answered by CTC; None: it can."""
    if task.tags == ANSWERED:
        return None
    return f"mode {CTC_GREEDY_SEARCH} hears words only and answers {ANSWERED}, not {task.tags}; use mode attention"


def check_model(model: OsumModel | WhisperPhase) -> None:
    """Raise ValueError for a model that was not trained with CTC."""
    if isinstance(model, WhisperPhase):
        model.token_logits(torch.zeros(1, model.config.d_model, device=model.device))
    else:
        check_training(f"mode {CTC_GREEDY_SEARCH}", ("ctc",), model.config.losses)


def generate(
    model: OsumModel | WhisperPhase,
    template: Template,
    batch: Batch,
    options: DecodeOptions,
    counts: Counter,
) -> list[Hypothesis]:
    """Answer every utterance of a batch. ``counts`` collects ``steps``, ``ties`` and the flags."""
    tasks = [template.task(name) for name in batch.tasks]
    seconds = (batch.feature_lengths * FRAME_S).tolist()
    rows = [make_row(template, *row, options) for row in zip(batch.keys, tasks, seconds, strict=True)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = batch.to(next(model.parameters()).device)
            states, lengths = model.ctc_states(batch.features, batch.feature_lengths)
            head = model.speech_classes()
            for row, mine, length in zip(rows, states, lengths.tolist(), strict=True):
                # Its own states alone: what surrounds it in the batch cannot matter.
                _decide(row, head.logits(mine[:length]), head.blank, head.token_ids, counts)
    finally:
        model.train(training)
    counts.update(flag for row in rows for flag in row.flags)
    return [hypothesis(row, template) for row in rows]


def _decide(
    row: Row, logits: Tensor, blank: int, token_ids: Callable[[list[int]], list[int]], counts: Counter
) -> None:
    """Write the best path of ``logits`` (N, C) into a row."""
    best = logits.topk(2, dim=-1).values
    ties = int((best[:, 0] - best[:, 1] <= TIE).sum())
    counts["steps"] += len(logits)
    counts["ties"] += ties
    if ties:
        row.flag("tie")
    path = logits.argmax(-1).unique_consecutive().tolist()
    row.answer_state.ids = token_ids([number for number in path if number != blank])

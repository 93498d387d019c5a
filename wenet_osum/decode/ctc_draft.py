"""CTC drafts: what CTC hears is proposed to the LLM, which checks many tokens in one pass.

Speculative decoding (Leviathan et al., 2023, arXiv 2211.17192) in which the draft comes from the
model's own CTC and not from a smaller LLM. The LLM's own next token decides at every place, so
greedy answers stay what they are; what was guessed right costs no pass of its own.

A draft can also be trusted: where CTC is sure of every frame, its transcript is the answer's, and
the LLM only goes on behind it (after "Self-Speculative Decoding for LLM-based ASR with CTC Encoder
Drafts", arXiv 2603.11243, which tells sure from unsure by the entropy of frames). Such answers may
differ from greedy ones.

Letters: N states, C classes of CTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode.draft import Draft
from wenet_osum.decode.row import Row

if TYPE_CHECKING:
    from wenet_osum.models.ctc_scores import SpeechClasses
    from wenet_osum.text.template import Template

# Counts of a run: tokens proposed, tokens that the LLM agreed to, transcripts taken on trust.
PROPOSED, AGREED, TRUSTED = "draft tokens", "draft tokens agreed", "drafts trusted"


def propose(
    rows: list[Row],
    states: Iterable[Tensor],
    classes: SpeechClasses,
    template: Template,
    trust: float,
) -> None:
    """Give each row whose answer begins with a plain transcript the draft of its ``states`` (N, D).

    Below a mean entropy of ``trust`` nats per state the draft is the transcript, and is taken at
    once.
    """
    for row, own in zip(rows, states, strict=True):
        if not begins_with_transcript(row):
            continue
        logits = classes.logits(own)
        path = best_path(logits, classes.blank)
        text = template.decode(classes.token_ids(path))
        # The LLM's own way to write it, which another set of classes may not be.
        ids = template.encode(text)
        if mean_entropy(logits) < trust:
            take_transcript(row, ids)
        else:
            row.draft = Draft(ids)


def begins_with_transcript(row: Row) -> bool:
    """Return whether the first thing that a row says is a transcript without times and marks."""
    state = row.answer_state
    if state.free:
        return False
    first = state.task.fields[0]
    if first.marked or first.metric == "timestamps":
        return False
    return first.kind == "transcript"


def best_path(logits: Tensor, blank: int) -> list[int]:
    """Return the classes of the likeliest path of ``logits`` (N, C).

    A class that several states in a row agree on stands once; blanks are taken out.
    """
    best = logits.argmax(-1)
    path = best.unique_consecutive()
    return [number for number in path.tolist() if number != blank]


def mean_entropy(logits: Tensor) -> float:
    """Return the mean entropy of the states of ``logits`` (N, C), nats."""
    logs = logits.float().log_softmax(-1)
    terms = torch.special.entr(logs.exp())
    entropies = terms.sum(-1)
    return float(entropies.mean())


def take_transcript(row: Row, ids: list[int]) -> None:
    """Let a row say the tokens without asking the LLM; it goes on behind them if more is asked."""
    row.trusted = True
    state = row.answer_state
    for token in ids:
        row.take(token)
        if row.choice or state.done:
            return
    if len(state.task.fields) == 1:
        state.end()

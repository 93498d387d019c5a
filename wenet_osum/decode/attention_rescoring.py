"""Attention rescoring: CTC finds the likeliest transcripts, the LLM chooses among them.

WeNet's mode of that name (Yao et al., 2021, arXiv 2102.01547) with an LLM, or the decoder of
phase 1, as the attention decoder: all transcripts of all utterances are scored in one pass, in the
place of one pass per token. What stands behind the transcript, such as labels, is answered as ever.

Letters: N states, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.ctc_beam import log_add, prefix_beam_search
from wenet_osum.decode.ctc_draft import begins_with_transcript, take_transcript
from wenet_osum.decode.ctc_prefix import LOG_ZERO
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.row import TIE, Row

if TYPE_CHECKING:
    from wenet_osum.decode.prefix import Prefixes
    from wenet_osum.models.ctc_scores import SpeechClasses
    from wenet_osum.text.template import Template

# Counts of a run: transcripts that were scored.
RESCORED = "transcripts rescored"


def propose(
    rows: list[Row],
    states: Iterable[Tensor],
    classes: SpeechClasses,
    template: Template,
    options: DecodeOptions,
) -> None:
    """Give each row whose answer begins with a plain transcript what CTC hears in its ``states``
    (N, D): the likeliest transcripts with their log-probabilities."""
    for row, own in zip(rows, states, strict=True):
        alone = len(row.answer_state.stretch) == 1
        if not alone or not begins_with_transcript(row):
            continue
        logits = classes.logits(own)
        found = prefix_beam_search(logits, classes.blank, options.ctc_beams)
        for path, log_prob in found:
            # Another way to write the same text is the same transcript.
            ids = classes.token_ids(path)
            text = template.decode(ids)
            before = row.candidates.get(text, LOG_ZERO)
            row.candidates[text] = log_add(before, log_prob)


def choose(prefixes: Prefixes, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Let each row say the transcript of the highest joint score: (1 - w) · log P of the LLM and w
    · log P of CTC, for the transcript as a whole, with its end."""
    asking = [number for number, row in enumerate(rows) if row.candidates]
    if not asking:
        return

    # What the LLM scores: all transcripts of all rows as it writes them, each with its end.
    written = []
    continuations = []
    for number in asking:
        row = rows[number]
        template = row.answer_state.template
        ending = end_of(row.answer_state)
        transcripts = [template.encode(text) for text in row.candidates]
        written.append(transcripts)
        continuations.append([ids + ending for ids in transcripts])
        counts[RESCORED] += len(transcripts)
    by_llm = prefixes.score(asking, continuations)

    for number, transcripts, scores in zip(asking, written, by_llm, strict=True):
        row = rows[number]
        by_ctc = [*row.candidates.values()]
        best, tied = _best(scores, by_ctc, options.ctc_weight)
        counts["steps"] += 1
        if tied:
            counts["ties"] += 1
            row.flag("tie")
        take_transcript(row, transcripts[best])


def _best(by_llm: list[float], by_ctc: list[float], weight: float) -> tuple[int, bool]:
    """Return which transcript has the highest joint score, and whether another one might have it
    in other batches."""
    joint = []
    for llm, ctc in zip(by_llm, by_ctc, strict=True):
        score = (1 - weight) * llm + weight * ctc
        joint.append(score)
    highest = max(joint)
    near = [score for score in joint if highest - score <= TIE]
    return joint.index(highest), len(near) > 1


def end_of(state: AnswerState) -> list[int]:
    """Return the tokens that say that the transcript is over: the end of the answer, or what all
    labels that may follow begin with."""
    choice = state.clone().end()
    if choice is None:
        return [state.template.end_id]
    first, *others = choice.continuations.values()
    common = len(first)
    for ids in others:
        while first[:common] != ids[:common]:
            common -= 1
    return first[:common]

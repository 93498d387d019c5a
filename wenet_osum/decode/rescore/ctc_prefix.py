"""CTC prefix scores of the adapter's output in the choice of a transcript's tokens.

Each token of a transcript gets (1 - w) · log P_LLM + w · log of the CTC prefix probability it adds
(Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition"), so
that words are neither invented nor left out. In a transcript with times, words are scored so, and
whether another word begins or the text ends follows from the probability that the transcript is
complete. Labels and replies are the LLM's alone.

Letters: S speech embeddings, H width of the LLM, V vocabulary, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wenet_osum.decode.ctc_pieces import PiecePrefix, Pieces
from wenet_osum.decode.ctc_prefix import FLOOR, LOG_ZERO, CTCPrefix, Emissions
from wenet_osum.decode.transcript_position import TranscriptPosition, in_transcript

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template


@dataclass(frozen=True)
class State:
    """The prefix of one answer.

    It has ``ended`` when the transcript has, or when it has left what CTC holds for possible.
    """

    prefix: CTCPrefix | PiecePrefix
    weight: float
    ended: bool = False

    def applies(self, answer_state: AnswerState, states: dict[str, Any]) -> bool:
        """Return whether the answer is in a transcript that has not ended."""
        return not self.ended and in_transcript(answer_state)

    def advance(self, answer_state: AnswerState, token: int) -> State:
        """Return the state after ``token``."""
        if self.ended or not in_transcript(answer_state):
            return self
        position = TranscriptPosition(answer_state)
        kind = position.kind(token)
        if kind == "end":
            return replace(self, ended=True)
        if kind == "time":
            return self
        prefix = self.prefix.extended(position.plain(token))
        # Where the LLM went on with what CTC excludes, CTC has nothing to say about the rest.
        excluded = prefix.log_p_prefix == LOG_ZERO
        return replace(self, prefix=prefix, ended=excluded)

    def change(
        self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]
    ) -> Tensor:
        """Return what turns log P_LLM into the joint score, (1 - w) · log P_LLM + w · gain.

        It is (K,) for ``tokens`` (K,) with ``logs`` (K,).
        """
        position = TranscriptPosition(answer_state)
        listed = tokens.tolist()
        plain = [position.plain(token) for token in listed]
        gains = self.prefix.token_gains(torch.tensor(plain, device=logs.device))
        end = self.prefix.end_gain()
        more = self.prefix.more_gain()
        for i, token in enumerate(listed):
            kind = position.kind(token)
            if kind == "end":
                gains[i] = end
            elif kind == "time":
                gains[i] = self._time_gain(position, more)
            elif position.begins_word:
                # That there is another word was paid for by its start time already.
                gains[i] -= more
        return self.weight * (gains.clamp(min=FLOOR) - logs)

    @staticmethod
    def _time_gain(position: TranscriptPosition, more: float) -> float:
        """Return the gain of a time.

        Between words it stands for the next word; between two times there must be a word.
        """
        if position.between:
            return more
        return FLOOR if position.begins_word else 0.0


class Rescorer:
    """Scores the tokens of transcripts by the CTC that the adapter was trained with.

    Where that has some of the LLM's tokens as classes, it writes words with other pieces than the
    LLM: they are compared by their characters (decode/ctc_pieces.py).
    """

    losses = ("ctc",)
    needs = ()

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        # Once for all utterances: of weights in bfloat16 this is a copy.
        self.scores = model.speech_classes()
        self.table = self.scores.tokens.float()
        self.weight = weights.get("ctc_prefix", 0.0)
        self.pieces: Pieces | None = None
        classes = self.scores.scoring.classes
        if classes is not None:
            self.pieces = Pieces(template.tokenizer, classes)

    def begin(self, states: Tensor, front: Tensor | None = None) -> State:
        """Start with the empty prefix."""
        scores = self.scores
        compared = scores.states(states)
        emissions = Emissions.of(compared, self.table, scores.blank, scores.offsets)
        if self.pieces is not None:
            empty = PiecePrefix.empty(self.pieces, emissions)
            return State(empty, self.weight)
        return State(CTCPrefix.empty(emissions), self.weight)

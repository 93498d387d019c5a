"""The answer tokens of a batch as the LLM of a speech LLM gives them.

Letters: B utterances, R chosen ones, A answer tokens of all utterances, S embeddings of the
longest, H width of the LLM.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenet_osum.devices import to_device
from wenet_osum.models import lora
from wenet_osum.models.layout import Pieces, lay_out
from wenet_osum.models.lengths import spans
from wenet_osum.models.llm import causal
from wenet_osum.models.loss import token_losses

if TYPE_CHECKING:
    from wenet_osum.records import Batch


class LLMAnswers:
    """Run the LLM over a batch: all utterances are one packed sequence.

    ``llm`` has the head, ``boundary`` the two vectors around the speech; ``speech`` (B, S, H) are
    its embeddings with their lengths (B,), on the CPU: of conversations those of each recording.
    """

    def __init__(
        self,
        llm: nn.Module,
        boundary: nn.Module,
        batch: Batch,
        speech: Tensor,
        lengths: Tensor,
    ) -> None:
        self.llm = llm
        self.boundary = boundary
        self.batch = batch
        self.speech = speech
        self.lengths = lengths

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Compute the losses and the correctness of the answer tokens, (A,) each."""
        return token_losses(self.head, self.hidden, self.batch.answer_ids)

    @property
    def head(self) -> nn.Module:
        """The LLM's head: hidden states (…, H) to logits of its vocabulary."""
        return self.llm.get_output_embeddings()

    @cached_property
    def hidden(self) -> Tensor:
        """The hidden states (A, H) that predict the answer tokens; computed once."""
        batch = self.batch
        pieces = Pieces(
            batch.prompt_ids,
            batch.prompt_lengths.cpu(),
            self.speech,
            self.lengths,
            batch.suffix_ids,
            batch.answer_ids,
            batch.answer_lengths.cpu(),
            batch.turns,
        )
        return self._run(pieces)

    @torch.no_grad()
    def reading(self, rows: Tensor, texts: Tensor, lengths: Tensor) -> Tensor:
        """Return ``hidden`` of the utterances ``rows`` (R,) as the LLM without LoRA gives it when
        it reads.

        ``texts``, end to end, are the tokens that stand in the place of each one's speech, and
        ``lengths`` (R,) of them, on the CPU.
        """
        embedded = self.llm.get_input_embeddings()(texts)
        parts = embedded.split(lengths.tolist())
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        batch = self.batch
        prompts = batch.prompt_lengths.cpu()
        answers = batch.answer_lengths.cpu()
        pieces = Pieces(
            take(batch.prompt_ids, prompts, rows),
            prompts[rows],
            padded,
            lengths,
            batch.suffix_ids,
            take(batch.answer_ids, answers, rows),
            answers[rows],
        )
        with lora.off(self.llm):
            return self._run(pieces)

    def _run(self, pieces: Pieces) -> Tensor:
        """Run the LLM over all utterances of ``pieces``, end to end."""
        embed = self.llm.get_input_embeddings()
        embeddings, totals = lay_out(embed, self.boundary, pieces)
        lengths = pieces.of_utterances(totals).tolist()
        multiple = getattr(self.llm, "multiple", 1)
        packing = causal.Packing(lengths, embeddings.device, multiple)
        hidden = causal.packed_forward(self.llm, embeddings, packing)

        # Answers stand at the ends of turns; what says each token is the state one place before it.
        ends = totals.cumsum(0)
        answers = pieces.answer_lengths
        before = spans(ends - answers - 1, answers)
        return hidden[to_device(before, hidden.device)]


def take(values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Take the values of the utterances ``rows`` (R,) out of those of all, which lie end to end,
    ``lengths`` (B,) of each."""
    sizes = lengths.cpu()
    starts = sizes.cumsum(0) - sizes
    index = spans(starts[rows], sizes[rows])
    return values[to_device(index, values.device)]

"""Labels heard beside the words: an embedding per label field, in front of the speech.

An adapter that CTC brings to where the words lie keeps little of a voice and its mood. So each
label field has a query that looks at the encoder's states of the whole utterance. SenseVoice (arXiv
2407.04051) puts such embeddings in front of an encoder's input; here they pool its output, by
attentive statistics (Okabe et al., 2018, arXiv 1803.10963): the mean and the standard deviation of
what a query attends to, for a mood is also in how much a voice moves. The loss ``labels`` brings
them to where the words of the labels lie in the LLM's space, without running the LLM.

Letters: B utterances, N encoder states of the longest, S speech embeddings of the longest, F label
fields, D width of the states, H width of the LLM.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum import lookup, tasks
from wenet_osum.models.lengths import valid_mask

# Added to a variance, whose root has no slope at 0.
LEAST = 1e-5


class LabelQueries(nn.Module):
    """Encoder states of ``input_width`` to an LLM embedding of ``output_width`` for each of the
    label fields ``names``."""

    def __init__(self, names: Iterable[str], input_width: int, output_width: int) -> None:
        super().__init__()
        self.names = check_fields(names)
        count = len(self.names)
        self.norm = nn.LayerNorm(input_width)
        self.attend = nn.Linear(input_width, count)

        # From mean and standard deviation to the LLM; a vector per field tells fields apart.
        self.hidden = nn.Linear(2 * input_width, input_width)
        start = torch.zeros(count, input_width)
        self.field = nn.Parameter(start)
        self.output = nn.Linear(input_width, output_width)
        self.output_norm = nn.LayerNorm(output_width)
        one = torch.ones(())
        self.register_buffer("gain", one)

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Let embeddings have the standard deviation ``std``, and attention begin as the mean."""
        self.gain.fill_(std)
        for parameter in self.attend.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.field)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool states (B, N, D) of ``lengths`` (B,): embeddings (B, F, H), in the order of
        ``names``."""
        states = self.norm(states)
        scores = self.attend(states)  # (B, N, F)
        longest = states.shape[1]
        exists = valid_mask(lengths, longest, states.device)
        if exists is not None:
            nothing = ~exists
            nothing = nothing[:, :, None]
            scores = scores.masked_fill(nothing, float("-inf"))
            states = states.masked_fill(nothing, 0.0)
        weights = scores.softmax(1)
        weights = weights.transpose(1, 2)  # (B, F, N)

        # Attentive statistics: mean and standard deviation under the weights.
        mean = weights @ states
        squares = states.square()
        mean_square = weights @ squares
        variance = mean_square - mean.square()
        variance = variance.clamp(min=0.0)
        deviation = (variance + LEAST).sqrt()

        pooled = torch.cat([mean, deviation], -1)
        return self._to_llm(pooled)

    def _to_llm(self, pooled: Tensor) -> Tensor:
        """Bring pooled states (B, F, 2D) into the LLM's space: (B, F, H)."""
        hidden = self.hidden(pooled) + self.field
        hidden = functional.gelu(hidden)
        output = self.output(hidden)
        return self.gain * self.output_norm(output)


def check_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of adapter_conf ``label_queries``.

    Raises ValueError for one that is no label field, or is there twice.
    """
    found = (names,) if isinstance(names, str) else tuple(names)
    known = sorted(tasks.label_fields())
    for name in found:
        if name not in known:
            fault = lookup.unknown("label field", name, known)
            raise ValueError(f"adapter_conf: label_queries: {fault}")
    different = set(found)
    if len(different) < len(found):
        listed = ", ".join(found)
        raise ValueError(f"adapter_conf: label_queries {listed} names a field twice")
    return found


def split_front(
    adapter: nn.Module, speech: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Split an adapter's embeddings (B, F + S, H) of ``lengths`` (B,) into those of its label
    fields (B, F, H), those of the speech (B, S, H), and the lengths of these."""
    names = front_names(adapter)
    count = len(names)
    front = speech[:, :count]
    frames = speech[:, count:]
    return front, frames, lengths - count


def front_names(adapter: nn.Module) -> tuple[str, ...]:
    """Return the label fields whose embeddings an adapter puts in front of the speech."""
    queries = getattr(adapter, "label_queries", None)
    if queries is None:
        return ()
    return queries.names

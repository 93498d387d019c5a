"""The adapter of Kimi-Audio (arXiv 2504.18425): neighboring states are stacked, and two layers map
them to the LLM's width.

    stack `factor` states · Linear · SiLU · Linear · LayerNorm · gain

Behind Whisper's 50 states per second ``factor`` 4 gives 12.5 embeddings per second. The gain is
ours: Kimi-Audio's embeddings have a standard deviation of 1 and are added to those of tokens, while
here they stand beside tokens and begin as large as these.

Letters: B utterances, N encoder states of the longest, S = ceil(N / factor) embeddings, D width of
the states, H width of the LLM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum.models.stack import check_factor, stack, stacked_lengths


class Adapter(nn.Module):
    """Encoder states of ``input_width`` to LLM embeddings of ``output_width``.

    The keys of ``adapter_conf`` are ``factor`` (states per embedding), ``width`` (between the two
    layers; None: that of the LLM) and ``dropout`` (there; Kimi-Audio has none). Raises ValueError
    for a factor below 1.
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        factor: int = 4,
        width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_factor("factor", factor)
        if width is None:
            width = output_width
        self.stride = factor
        self.input = nn.Linear(input_width * factor, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, output_width)
        self.norm = nn.LayerNorm(output_width)
        one = torch.ones(())
        self.register_buffer("gain", one)

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Let embeddings begin with the standard deviation ``std``.

        The norm gives 1, and a fixed gain does the rest: weights as small as the embeddings of
        published LLMs (0.017) would be lost in one step of AdamW, which moves each by the learning
        rate.
        """
        self.gain.fill_(std)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings from ``lengths`` states: a last group that is not full counts as well."""
        return stacked_lengths(lengths, self.stride)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map states (B, N, D) of ``lengths`` (B,) to embeddings (B, S, H) and their lengths (B,),
        on the CPU."""
        lengths = lengths.cpu()
        # A frozen encoder may be in half precision beside an adapter in float32.
        states = states.to(self.input.weight.dtype)
        stacked = stack(states, lengths, self.stride)
        hidden = self.input(stacked)
        hidden = functional.silu(hidden)
        hidden = self.dropout(hidden)
        hidden = self.output(hidden)
        hidden = self.norm(hidden)
        embeddings = self.gain * hidden
        return embeddings, self.output_lengths(lengths)

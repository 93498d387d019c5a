"""The plain baseline of an adapter: neighboring encoder states are stacked and projected.

    stack `factor` states · LayerNorm · Linear · GELU · `layers` transformer layers · Linear · gain

SLAM-ASR (arXiv 2402.08846) calls it a linear projector. Behind Whisper's 50 states per second
``factor`` 2 gives 25 embeddings per second, as CTC into a word-piece vocabulary wants, and 4 gives
the 12.5 of ``conv_transformer``.

Letters: B utterances, N encoder states of the longest, S = ceil(N / factor) embeddings, D width of
the states, W width inside, H width of the LLM.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum.models.adapter.conv_transformer import Layer
from wenet_osum.models.heads import HEADS, fitting_heads
from wenet_osum.models.lengths import key_mask
from wenet_osum.models.sinusoids import positions
from wenet_osum.models.stack import check_factor, stack, stacked_lengths


class Adapter(nn.Module):
    """Encoder states of ``input_width`` to LLM embeddings of ``output_width``.

    The keys of ``adapter_conf`` are ``factor`` (states per embedding), ``width`` (inside; None:
    that of the LLM), ``layers`` (transformer layers after the projection, with ``heads`` and inner
    width ``ffn``) and ``dropout``. Raises ValueError for a factor below 1 and heads that do not
    fit.
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        factor: int = 2,
        width: int | None = None,
        layers: int = 0,
        heads: int = HEADS,
        ffn: int = 1792,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_factor("factor", factor)
        width = width or output_width
        if layers and (width % heads or width % 2):
            raise ValueError(
                f"adapter_conf: width {width} must be even and a multiple of heads {heads}"
            )
        self.stride = factor
        stacked = input_width * factor
        self.input_norm = nn.LayerNorm(stacked)
        self.input = nn.Linear(stacked, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(Layer(width, heads, ffn, dropout))
        # Only layers need it: their residual stream grows.
        self.norm = nn.LayerNorm(width) if layers else nn.Identity()
        self.output = nn.Linear(width, output_width)
        self.register_buffer("gain", torch.ones(()))

    @staticmethod
    def complete_conf(input_width: int, output_width: int, conf: dict[str, Any]) -> dict[str, Any]:
        """Complete the ``adapter_conf`` of a new model that has layers with its ``heads``.

        They are 4, or where those were above 256 channels the next number that fits. They are saved
        with the model; one that was saved without them has 4.
        """
        if not conf.get("layers"):
            return conf
        width = conf.get("width") or output_width
        heads = fitting_heads(width)
        return {"heads": heads} | conf

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Let embeddings begin with the standard deviation ``std``.

        A fixed gain does it, not small weights: an optimizer such as AdamW moves every weight by
        the learning rate, and the embeddings of published LLMs are so small (0.017) that one step
        would throw them far beyond all tokens. The gain is measured on states of unit normal
        distribution, which the first LayerNorm makes of any.
        """
        width = self.output.in_features
        nn.init.normal_(self.output.weight, std=width**-0.5)
        nn.init.zeros_(self.output.bias)

        # States of 64 embeddings, without dropout.
        draw = torch.Generator().manual_seed(0)
        channels = self.input.in_features // self.stride
        longest = 64 * self.stride
        states = torch.randn(1, longest, channels, generator=draw)
        training = self.training
        self.eval()
        self.gain.fill_(1.0)
        made, _ = self(states, torch.tensor([longest]))

        # What brings them to the deviation that is asked for.
        made_std = made.float().std()
        self.gain.copy_(std / made_std)
        self.train(training)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings from ``lengths`` states: a last group that is not full counts as well."""
        return stacked_lengths(lengths, self.stride)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Project states (B, N, D) of ``lengths`` (B,) to embeddings (B, S, H) and their lengths
        (B,), on the CPU."""
        lengths = lengths.cpu()
        # A frozen encoder may be in half precision beside an adapter in float32.
        states = states.to(self.input.weight.dtype)
        hidden = stack(states, lengths, self.stride)  # (B, S, factor · D)
        hidden = self.input_norm(hidden)
        hidden = self.input(hidden)
        hidden = functional.gelu(hidden)
        hidden = self.dropout(hidden)  # (B, S, W)

        lengths = self.output_lengths(lengths)
        if self.layers:
            hidden = self._attended(hidden, lengths)
        hidden = self.norm(hidden)
        embeddings = self.output(hidden)
        return self.gain * embeddings, lengths

    def _attended(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Let embeddings look at each other: (B, S, W) to (B, S, W)."""
        _, longest, width = hidden.shape
        places = positions(longest, width, hidden.device)
        hidden = hidden + places.to(hidden.dtype)
        hidden = self.dropout(hidden)
        mask = key_mask(lengths, longest, hidden.device)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden

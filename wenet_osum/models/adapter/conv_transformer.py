"""The adapter of OSUM (arXiv 2501.13306): three causal convolutions, a few transformer layers, a linear map to the LLM's width.

Letters: B utterances, N encoder states (50 Hz) of the longest, S = ceil(ceil(N / 2) / 2) embeddings (12.5 Hz), D width, H width of the LLM.

One convolution of stride 2 makes ceil(n / 2) of n states: output j sees inputs 2j-2 … 2j, and left padding alone places the last
output on the last input or one before, so an odd length keeps its last state (WeNet's mask rule ``[:, 0::2]`` counts the same).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.sinusoids import positions

KERNEL = 3
STRIDES = (1, 2, 2)
LARGEST_HEAD = 256  # channels: flash attention's limit


class Adapter(nn.Module):
    """Encoder states of ``input_width`` to LLM embeddings of ``output_width``.

    ``width`` (None: that of the encoder), ``layers``, ``heads``, ``ffn`` (inner width of a layer) and ``dropout`` are the keys of ``adapter_conf``.
    """

    def __init__(
        self, input_width: int, output_width: int, width: int | None = None, layers: int = 4, heads: int = 4, ffn: int = 2560, dropout: float = 0.1
    ) -> None:
        super().__init__()
        width = width or input_width
        if width % heads or width % 2:
            raise ValueError(f"adapter width {width} must be even and a multiple of heads {heads}; change adapter_conf")
        inputs = [input_width, *[width] * (len(STRIDES) - 1)]
        self.convolutions = nn.ModuleList(nn.Conv1d(n, width, KERNEL, stride) for n, stride in zip(inputs, STRIDES, strict=True))
        self.input = nn.Linear(width, width)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(width, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, output_width)
        self._balance()

    @staticmethod
    def complete_conf(input_width: int, conf: dict[str, Any]) -> dict[str, Any]:
        """``adapter_conf`` of a new model with its ``heads``: 4, or where those were above
        ``LARGEST_HEAD`` channels the next number that fits.

        The number is saved with the model; a model that was saved without one has 4.
        """
        width = conf.get("width") or input_width
        dividing = (heads for heads in range(4, width + 1) if width % heads == 0)
        fitting = (heads for heads in dividing if width // heads <= LARGEST_HEAD)
        return {"heads": next(fitting, 4)} | conf

    @torch.no_grad()
    def _balance(self) -> None:
        """Begin without biases before the layers, and with a norm as small as the positions that are added to it.

        Positions are added to √width times the norm's output: without the factor 1/√width they would be lost in it, and
        the layers' sums as well.
        """
        for module in (*self.convolutions, self.input):
            nn.init.zeros_(module.bias)
        nn.init.constant_(self.input_norm.weight, self.input_norm.weight.shape[0] ** -0.5)

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Set the initial weights of a new adapter: torch's own start shrinks the signal at each convolution."""
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        self.initialize_output(std)

    @torch.no_grad()
    def initialize_output(self, std: float) -> None:
        """Let the embeddings begin with the standard deviation ``std``, that of the LLM's tokens.

        Beside larger ones the LLM's layers could add nothing.
        """
        nn.init.normal_(self.output.weight, std=std / math.sqrt(self.output.in_features))
        nn.init.zeros_(self.output.bias)

    @property
    def stride(self) -> int:
        """States per embedding."""
        return math.prod(STRIDES)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings from ``lengths`` states: each stride of 2 halves, rounding up."""
        for stride in STRIDES:
            lengths = (lengths + stride - 1) // stride
        return lengths

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, N, D) of ``lengths`` (B,) to embeddings (B, S, H) and their lengths (B,), on the CPU.

        The convolutions look back only, so what lies after an utterance's end cannot reach it; attention masks it as keys.
        """
        # a frozen encoder may be in half precision beside an adapter in float32
        hidden = states.transpose(1, 2).to(self.convolutions[0].weight.dtype)
        for convolution in self.convolutions:
            hidden = functional.gelu(convolution(functional.pad(hidden, (KERNEL - 1, 0))))
        hidden = self.dropout(self.input_norm(self.input(hidden.transpose(1, 2))))
        width = hidden.shape[2]
        hidden = self.dropout(hidden * math.sqrt(width) + positions(hidden.shape[1], width, hidden.device).to(hidden.dtype))
        lengths = self.output_lengths(lengths.cpu())
        mask = valid_mask(lengths, hidden.shape[1], hidden.device)
        mask = mask if mask is None else mask[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.output(self.norm(hidden)), lengths


class Layer(GradientCheckpointingLayer):
    """A pre-norm transformer layer with ReLU."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn)
        self.ffn_out = nn.Linear(ffn, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden (B, S, D); mask (B, 1, 1, S), True for keys that exist, None for all."""
        hidden = hidden + self.dropout(self._attend(self.attention_norm(hidden), mask))
        inner = self.dropout(functional.relu(self.ffn_in(self.ffn_norm(hidden))))
        return hidden + self.dropout(self.ffn_out(inner))

    def _attend(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, width = hidden.shape
        heads = (rows, length, self.heads, width // self.heads)
        query, key, value = (project(hidden).view(heads).transpose(1, 2) for project in (self.query, self.key, self.value))
        rate = self.dropout.p if self.training else 0.0
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        return self.out(attended.transpose(1, 2).reshape(rows, length, width))

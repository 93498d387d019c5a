"""The adapter of OSUM (arXiv 2501.13306): three causal convolutions, a few transformer layers, a
linear map to the LLM's width.

Letters: B utterances, N encoder states (50 Hz) of the longest, S = ceil(ceil(N / 2) / 2) embeddings
(12.5 Hz), D width, H width of the LLM.

One convolution of stride 2 makes ceil(n / 2) of n states: output j sees inputs 2j-2 … 2j, and left
padding alone places the last output on the last input or one before, so an odd length keeps its
last state (WeNet's mask rule ``[:, 0::2]`` counts the same).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from wenet_osum.models.heads import HEADS, fitting_heads
from wenet_osum.models.lengths import key_mask
from wenet_osum.models.sinusoids import positions

KERNEL = 3
STRIDES = (1, 2, 2)


class Adapter(nn.Module):
    """Encoder states of ``input_width`` to LLM embeddings of ``output_width``.

    The keys of ``adapter_conf`` are ``width`` (None: that of the encoder), ``layers``, ``heads``,
    ``ffn`` (inner width of a layer), ``dropout``, and ``gain`` (whether embeddings are multiplied
    by a fixed number, see ``initialize``; new models have one, converted and older ones none).
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        width: int | None = None,
        layers: int = 4,
        heads: int = HEADS,
        ffn: int = 2560,
        dropout: float = 0.1,
        gain: bool = False,
    ) -> None:
        super().__init__()
        width = width or input_width
        if width % heads or width % 2:
            raise ValueError(
                f"adapter width {width} must be even and a multiple of heads {heads}; "
                "change adapter_conf"
            )

        # Down to 12.5 embeddings per second.
        self.convolutions = nn.ModuleList()
        channels = input_width
        for stride in STRIDES:
            self.convolutions.append(nn.Conv1d(channels, width, KERNEL, stride))
            channels = width
        self.input = nn.Linear(width, width)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

        # Embeddings look at each other.
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(Layer(width, heads, ffn, dropout))
        self.norm = nn.LayerNorm(width)

        self.output = nn.Linear(width, output_width)
        self.register_buffer("gain", torch.ones(()) if gain else None)
        self._balance()

    @staticmethod
    def complete_conf(input_width: int, output_width: int, conf: dict[str, Any]) -> dict[str, Any]:
        """Complete the ``adapter_conf`` of a new model with its ``heads`` and ``gain``.

        Heads are 4, or where those were above 256 channels the next number that fits.
        Both are saved with the model; a model that was saved without them has 4 heads and no gain.
        """
        width = conf.get("width") or input_width
        heads = fitting_heads(width)
        chosen = {"heads": heads, "gain": True}
        return chosen | conf

    @torch.no_grad()
    def _balance(self) -> None:
        """Begin without biases before the layers, and with a norm as small as the positions that
        are added to it.

        Positions are added to √width times the norm's output: without the factor 1/√width they
        would be lost in it, and the layers' sums as well.
        """
        for module in (*self.convolutions, self.input):
            nn.init.zeros_(module.bias)
        scale = self.input_norm.weight
        width = len(scale)
        nn.init.constant_(scale, width**-0.5)

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Set the weights of a new adapter; its embeddings begin with the standard deviation
        ``std``, that of the LLM's tokens.

        Where there is a gain, it does that, not small weights: an optimizer such as AdamW moves
        every weight by the learning rate, and the embeddings of published LLMs are so small (0.017)
        that one step would throw these far beyond all tokens.
        """
        # Torch's own start shrinks the signal at each convolution.
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        if self.gain is None:
            self.initialize_output(std)
        else:
            self.initialize_output(1.0)
            self.gain.fill_(std)

    @torch.no_grad()
    def initialize_output(self, std: float) -> None:
        """Let the last linear map give the standard deviation ``std``.

        Beside embeddings larger than its tokens the LLM's layers could add nothing. The norm before
        the map makes whatever it takes of deviation 1.
        """
        width = self.output.in_features
        weight_std = std / math.sqrt(width)
        nn.init.normal_(self.output.weight, std=weight_std)
        nn.init.zeros_(self.output.bias)

    def fit_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rewrite the weights of another such adapter so that they fit this one, with a gain or
        without, and give the same embeddings."""
        fitting = dict(state)
        if self.gain is not None:
            fitting.setdefault("gain", torch.ones_like(self.gain))
        elif "gain" in fitting:
            gain = fitting.pop("gain")
            for name in ("output.weight", "output.bias"):
                fitting[name] = gain * fitting[name]
        return fitting

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
        """States (B, N, D) of ``lengths`` (B,) to embeddings (B, S, H) and their lengths (B,), on
        the CPU.

        The convolutions look back only, so what lies after an utterance's end cannot reach it;
        attention masks it as keys.
        """
        hidden = self._convolved(states)  # (B, S, D)
        hidden = self.input(hidden)
        hidden = self.dropout(self.input_norm(hidden))

        # Positions, as WeNet adds them: beside states that are √width times larger.
        _, longest, width = hidden.shape
        places = positions(longest, width, hidden.device)
        hidden = hidden * math.sqrt(width)
        hidden = self.dropout(hidden + places.to(hidden.dtype))

        lengths = lengths.cpu()
        lengths = self.output_lengths(lengths)
        mask = key_mask(lengths, longest, hidden.device)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        embeddings = self.output(self.norm(hidden))
        if self.gain is not None:
            embeddings = self.gain * embeddings
        return embeddings, lengths

    def _convolved(self, states: Tensor) -> Tensor:
        """Run the convolutions: (B, N, D) to (B, S, D)."""
        # A frozen encoder may be in half precision beside an adapter in float32.
        dtype = self.convolutions[0].weight.dtype
        hidden = states.to(dtype)
        hidden = hidden.transpose(1, 2)
        for convolution in self.convolutions:
            padded = functional.pad(hidden, (KERNEL - 1, 0))
            hidden = functional.gelu(convolution(padded))
        return hidden.transpose(1, 2)


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
        attended = self._attend(self.attention_norm(hidden), mask)
        hidden = hidden + self.dropout(attended)

        inner = self.ffn_in(self.ffn_norm(hidden))
        inner = self.dropout(functional.relu(inner))
        return hidden + self.dropout(self.ffn_out(inner))

    def _attend(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Let positions look at each other: (B, S, D) to (B, S, D)."""
        query = split_heads(self.query(hidden), self.heads)
        key = split_heads(self.key(hidden), self.heads)
        value = split_heads(self.value(hidden), self.heads)
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        joined = attended.transpose(1, 2)
        joined = joined.reshape(hidden.shape)
        return self.out(joined)


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """Cut (B, S, D) into heads: (B, heads, S, D / heads)."""
    split = projected.unflatten(2, (heads, -1))
    return split.transpose(1, 2)

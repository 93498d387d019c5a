"""A wide ``conv_transformer`` whose convolutions begin as a linear map (Balduzzi et al., 2017, "The
Shattered Gradients Problem").

Every channel has a twin of opposite sign. As gelu(x) - gelu(-x) = x, the difference of twins passes
the activation unchanged. So speech comes through a new adapter whole, which a short training would
otherwise have to arrange first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialize(adapter: nn.Module, std: float) -> None:
    """Set the weights of a new ``conv_transformer`` adapter in place; ``std`` is that of its
    output.

    Raises ValueError for an adapter whose width is below twice the encoder's: twins need the room.
    """
    convolutions = getattr(adapter, "convolutions", None)
    if convolutions is None or not _has_room(convolutions):
        raise ValueError(
            "model.adapter_init looks_linear: needs adapter conv_transformer with "
            "adapter_conf.width of at least twice the encoder's width; "
            "raise it, or drop adapter_init"
        )
    # The first convolution reads the encoder, the others channels that are twins.
    for number, convolution in enumerate(convolutions):
        shape = tuple(convolution.weight.shape)
        weight = _mirrored(shape, paired=number > 0)
        convolution.weight.copy_(weight)

    # What the transformer reads needs no twins any more: the first half of the outputs is enough.
    width = adapter.input.in_features
    weight = _mirrored((2 * width, width, 1), paired=True)
    weight = weight[:width, :, 0]
    adapter.input.weight.copy_(weight)
    adapter.initialize_output(std)


def _has_room(convolutions: nn.ModuleList) -> bool:
    """Return whether the adapter has two channels for each of the encoder's."""
    encoder_width = convolutions[0].in_channels
    width = convolutions[-1].in_channels
    return width >= 2 * encoder_width


def _mirrored(shape: tuple[int, ...], paired: bool) -> Tensor:
    """Draw a convolution's weight (outputs, inputs, taps) whose second half of outputs is the first
    with the other sign.

    The first half is orthogonal. Inputs that are ``paired`` come as twins themselves, and their
    difference is taken; others are looked at through the last tap alone.
    """
    outputs, inputs, taps = shape
    rows = outputs // 2
    if paired:
        pairs = inputs // 2
        flat = torch.empty(rows, pairs * taps)
        nn.init.orthogonal_(flat)
        first = flat.view(rows, pairs, taps)
        half = torch.cat([first, -first], dim=1)
    else:
        half = torch.zeros(rows, inputs, taps)
        nn.init.orthogonal_(half[:, :, -1])
    return torch.cat([half, -half])

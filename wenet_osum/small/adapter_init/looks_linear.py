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
    if convolutions is None or convolutions[-1].in_channels < 2 * convolutions[0].in_channels:
        rule = "needs adapter conv_transformer with adapter_conf.width of at least twice the encoder's width"
        raise ValueError(f"model.adapter_init looks_linear: {rule}; raise it, or drop adapter_init")
    for number, convolution in enumerate(convolutions):
        convolution.weight.copy_(_mirrored(convolution.weight.shape, paired=number > 0))
    width = adapter.input.in_features
    adapter.input.weight.copy_(_mirrored((2 * width, width, 1), paired=True)[:width, :, 0])
    adapter.initialize_output(std)


def _mirrored(shape: tuple[int, ...], paired: bool) -> Tensor:
    """Draw a convolution's weight (outputs, inputs, taps) whose second half of outputs is the first
    with the other sign.

    The first half is orthogonal. Inputs that are ``paired`` come as twins themselves, and their
    difference is taken; others are looked at through the last tap alone.
    """
    outputs, inputs, taps = shape
    if paired:
        half = nn.init.orthogonal_(torch.empty(outputs // 2, inputs // 2 * taps)).view(outputs // 2, inputs // 2, taps)
        half = torch.cat([half, -half], dim=1)
    else:
        half = torch.zeros(outputs // 2, inputs, taps)
        nn.init.orthogonal_(half[:, :, -1])
    return torch.cat([half, -half])

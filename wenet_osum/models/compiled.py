"""Layers of the encoder and the LLM compiled by torch.compile, on shapes that repeat.

Each layer is compiled on its own: all of a stack share what is compiled, and FSDP and checkpointing
go around it as around any layer. Attention over packed utterances stays outside, for it is a kernel
already and its utterances are others in every micro-batch. A new length would be a new shape, so
packs are filled up to a multiple of ``TOKENS``, and encoder states to one of ``STATES``: torch
compiles for the first length, and at the second for all.
"""

from __future__ import annotations

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

# Multiples of the lengths, in LLM positions and in encoder states.
TOKENS, STATES = 256, 64


def compile_layers(model: nn.Module, backend: str = "inductor") -> int:
    """Compile the layers of ``model`` in place, names stay; returns how many there are.

    ``backend`` is one of torch.compile's.
    """
    stacks = [model.encoder]
    model.encoder.multiple = STATES
    if hasattr(model, "llm"):
        stacks.append(model.llm)
        model.llm.multiple = TOKENS
    count = 0
    for stack in stacks:
        for layer in stack.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.compile(backend=backend)
                count += 1
    return count

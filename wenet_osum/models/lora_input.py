"""The input of LoRA layers, dropped and cast once for all layers that read it.

peft gives each layer a dropout of its own. Before it the input is cast to the float32 of the
adapters, and under autocast back for the product. Query, key and value read one input, though, and
so do both halves of a gated MLP: here they share its mask, and under autocast nothing is cast.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from wenet_osum.models.dtypes import autocast_dtype

# Names of the layers of a block that read the same input.
SHARING = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class SharedInput(nn.Module):
    """Stands in the place of the dropout of each of ``readers`` layers, which are called one after
    the other with the same tensor.

    ``rate`` is the share of channels that is dropped; ``adapter`` is one whose dtype the input is
    to have where autocast is off.
    """

    def __init__(self, rate: float, adapter: nn.Module, readers: int) -> None:
        super().__init__()
        self.rate = rate
        self.readers = readers
        # In a tuple: it is no part of this module.
        self._adapter = (adapter,)
        # The last input, what was made of it, and how many readers have still to come.
        self._given: Tensor | None = None
        self._made: Tensor | None = None
        self._left = 0

    def forward(self, given: Tensor) -> Tensor:
        """Return the input, dropped: for the same tensor the same result."""
        if given is not self._given:
            self._given = given
            self._made = self._prepared(given)
            self._left = self.readers
        made = self._made
        self._left -= 1
        # Nothing is kept beyond the last reader.
        if self._left == 0:
            self._given = self._made = None
        return made

    def _prepared(self, given: Tensor) -> Tensor:
        if autocast_dtype(given.device) is None:
            (adapter,) = self._adapter
            given = given.to(adapter.weight.dtype)
        if self.rate and self.training:
            return functional.dropout(given, self.rate)
        return given


def share(llm: nn.Module, name: str) -> None:
    """Let the LoRA layers of ``llm`` with adapters ``name`` share their inputs."""
    from peft.tuners.lora import LoraLayer

    for block in llm.modules():
        layers = {}
        for child, module in block.named_children():
            plain = isinstance(module, LoraLayer) and name not in module.lora_variant
            if plain and name in module.lora_A:
                layers[child] = module
        for group in _groups(layers):
            _share(group, name)


def _groups(layers: dict[str, nn.Module]) -> list[list[nn.Module]]:
    """Put the LoRA layers of a block together that read the same input."""
    found = []
    alone = dict(layers)
    for names in SHARING:
        together = [alone.pop(name) for name in names if name in alone]
        if together:
            found.append(together)
    return found + [[layer] for layer in alone.values()]


def _share(layers: list[nn.Module], name: str) -> None:
    first = layers[0]
    dropout = first.lora_dropout[name]
    rate = getattr(dropout, "p", 0.0)
    shared = SharedInput(rate, first.lora_A[name], len(layers))
    shared.train(dropout.training)
    for layer in layers:
        layer.lora_dropout[name] = shared
        layer.cast_input_dtype_enabled = False

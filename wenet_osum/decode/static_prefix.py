"""A key-value cache of fixed size, and on CUDA decoding steps that are replayed as one graph.

Python takes longer to launch the kernels of a step, some hundreds of them, than a GPU takes to run
those of a small LLM. A CUDA graph launches all of them at once. What it reads and writes has to lie
where it lay when the graph was captured: so the cache has its full length from the beginning, and
the inputs of every step are written into the same tensors.

Letters: B answers, R rows of a step (B or more), K key heads, C positions of the cache, E channels
a head, V vocabulary.
"""

from __future__ import annotations

import weakref
from typing import cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, StaticLayer

from wenet_osum.decode.prefix import Prefixes, selected
from wenet_osum.models import loras

# A cache has a multiple of so many positions, and at first at least so many for the answers.
POSITIONS = 256
# torch wants some runs before a capture, in which libraries choose their kernels.
RUNS_BEFORE = 3

# The cache of each LLM: its graphs are captured once, and serve all batches that fit.
rooms: weakref.WeakKeyDictionary[nn.Module, Room] = weakref.WeakKeyDictionary()


class StaticPrefixes(Prefixes):
    """Answers so far, for greedy search and sampling.

    Rows that are finished stay in a step, unheeded, until half of its rows are: then the others
    move to a step of half the size.
    """

    # As in Prefixes.
    mask: Tensor
    next: Tensor
    logits: Tensor
    # The cache and its steps; the answers that are in it own it, one batch at a time.
    room: Room
    # The step that is run, and where in it each answer has its row (B,).
    step: Step
    rows: Tensor
    # Positions of the cache that are filled.
    filled: int

    def __init__(self, llm: nn.Module, embeds: Tensor, mask: Tensor) -> None:
        """Begin with the left-padded prompts; they are read with a cache as it grows."""
        super().__init__(llm, embeds, mask)
        self._enter(cast(DynamicCache, self.cache))

    def _enter(self, cache: DynamicCache) -> None:
        """Copy the cache of all answers into a step that has room for them."""
        count, length = self.mask.shape
        self.room = room_for(self.llm, cache, count, length)
        self.room.owner = id(self)
        self.step = self.room.step(count)
        self.step.fill(cache, self.mask)
        self.rows = torch.arange(count, device=self.mask.device)
        self.filled = length

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every answer."""
        owner = self.room.owner
        assert owner == id(self), "another batch has been put into this cache"
        device = self.mask.device
        if self.filled == self.room.length:
            every = torch.arange(len(tokens), device=device)
            cache = self._selected(every)
            self._enter(cache)

        ids = torch.tensor(tokens, device=device)
        logits = self.step.run(
            self.rows,
            ids,
            self.next,
            self.filled,
        )
        self.logits = logits[self.rows]
        real = torch.ones_like(ids)
        real = real.unsqueeze(1)
        self.mask = torch.cat([self.mask, real], dim=1)
        self.next = self.next + 1
        self.filled += 1

    def propose(self, tokens: list[list[int]]) -> Tensor:
        """Refuse: a step of fixed size reads one token of every answer."""
        raise AssertionError("drafts have many tokens; a static cache takes one at a time")

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, each once."""
        count = len(rows)
        once = len(set(rows)) == count
        assert once, "a row of the cache cannot be of two answers"
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        self.logits = self.logits[index]
        self.next = self.next[index]
        if 2 * count > self.step.count:
            self.rows = self.rows[index]
            self.mask = mask
            return

        # Padding that no row needs any more is cut on the way.
        begins = mask.argmax(1)
        padding = int(begins.min())
        cache = self._selected(index, padding)
        self.mask = mask[:, padding:]
        self._enter(cache)

    def _selected(self, index: Tensor, padding: int = 0) -> DynamicCache:
        """Return what is filled of the rows ``index``, as a cache of its own that can grow."""
        rows = self.rows[index]
        return selected(self.step.cache, rows, padding, self.filled)


def room_for(llm: nn.Module, cache: DynamicCache, count: int, length: int) -> Room:
    """Return the cache of an LLM, made anew where ``count`` rows of ``length`` positions and one
    more do not fit."""
    room = rooms.get(llm)
    if room is not None and room.count >= count and room.length > length:
        return room
    needed = length + POSITIONS
    positions = -(-needed // POSITIONS) * POSITIONS
    rows = power_of_two(count)
    if room is not None:
        positions = max(positions, room.length)
        rows = max(rows, room.count)
        # The old one goes before the new one is made.
        del rooms[llm], room
    made = Room(llm, cache, rows, positions)
    rooms[llm] = made
    return made


def power_of_two(count: int) -> int:
    """Return the least power of two that is ``count`` or more."""
    return 1 << (count - 1).bit_length()


class Room:
    """Keys and values (R, K, C, E) of every layer, and the steps that read the first rows of them.

    ``like`` is a cache of the same model, ``count`` R and ``length`` C.
    """

    # Whose answers are in it: the id of a StaticPrefixes.
    owner: int | None = None

    def __init__(self, llm: nn.Module, like: DynamicCache, count: int, length: int) -> None:
        # Not the LLM itself, or neither would ever go.
        self.llm = weakref.ref(llm)
        self.count = count
        self.length = length
        self.keys, self.values = [], []
        for layer in like.layers:
            keys = _zeros(layer.keys, count, length)
            values = _zeros(layer.values, count, length)
            self.keys.append(keys)
            self.values.append(values)
        # By rows, and by the LoRA that works: a graph keeps the weights it was captured with.
        self.steps: dict[tuple[int, str | None], Step] = {}

    def step(self, count: int) -> Step:
        """Return the step of so many rows, rounded up to a power of two; captured when first asked
        for."""
        rows = power_of_two(count)
        llm = self.llm()
        assert llm is not None, "the LLM is gone, and its cache is used"
        key = (rows, loras.chosen(llm))
        if key not in self.steps:
            self.steps[key] = Step(self, llm, rows)
        return self.steps[key]


def _zeros(like: Tensor, count: int, length: int) -> Tensor:
    """Make keys or values of one layer, of the shape and kind of others (B, K, L, E)."""
    _, heads, _, channels = like.shape
    return like.new_zeros(count, heads, length, channels)


class Step:
    """One token of each of ``count`` rows through the LLM; tensors stay where they are."""

    # (R, V), written anew by every run.
    logits: Tensor
    graph: torch.cuda.CUDAGraph | None = None

    def __init__(self, room: Room, llm: nn.Module, count: int) -> None:
        self.llm = weakref.ref(llm)
        self.count = count
        like = room.keys[0]
        device = like.device
        self.ids = like.new_zeros(count, 1, dtype=torch.long)
        self.positions = torch.zeros_like(self.ids)
        shape = (count, 1, 1, room.length)
        self.mask = like.new_ones(shape, dtype=torch.bool)

        # Where the next keys go, for each layer: each counts it on by itself.
        places = [0] * len(room.keys)
        self.filled = torch.tensor(places, device=device)
        layers = []
        for keys, values, place in zip(room.keys, room.values, self.filled, strict=True):
            layer = _layer(keys[:count], values[:count], place)
            layers.append(layer)
        self.cache = Cache(layers=layers)
        if device.type == "cuda":
            self._capture()

    def _compute(self) -> Tensor:
        """Run the LLM over the inputs; returns the logits (R, V)."""
        llm = self.llm()
        assert llm is not None, "the LLM is gone, and its cache is used"
        out = llm(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.logits[:, -1].float()

    def _capture(self) -> None:
        """Record the kernels of a run (CUDA graphs). Whatever is in the cache is overwritten."""
        current = torch.cuda.current_stream()
        aside = torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(RUNS_BEFORE):
                self.filled.zero_()
                self._compute()
        current.wait_stream(aside)

        self.filled.zero_()
        self.graph = torch.cuda.CUDAGraph()
        # Threads that load data may use the GPU meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logits = self._compute()

    def fill(self, cache: DynamicCache, mask: Tensor) -> None:
        """Copy the cache of B answers, of which ``mask`` (B, L) counts what is real, into the first
        rows."""
        count, length = mask.shape
        layers = zip(self.cache.layers, cache.layers, strict=True)
        for own, layer in layers:
            keys = own.keys[:count]
            values = own.values[:count]
            keys[:, :, :length] = layer.keys
            values[:, :, :length] = layer.values

        self.mask.fill_(False)
        self.mask[:count, 0, 0, :length] = mask.bool()
        # Rows of no answer look at something too: a softmax over nothing is not a number.
        self.mask[count:, 0, 0, 0] = True

    def run(self, rows: Tensor, ids: Tensor, positions: Tensor, filled: int) -> Tensor:
        """Read the tokens ``ids`` (B,) of ``rows`` (B,), of the position ids ``positions`` (B,).

        They are written behind the ``filled`` positions of the cache. Returns the logits (R, V).
        """
        self.ids[rows, 0] = ids
        self.positions[rows, 0] = positions
        self.mask[:, :, :, filled] = True
        self.filled.fill_(filled)
        if self.graph is None:
            self.logits = self._compute()
        else:
            self.graph.replay()
        return self.logits


def _layer(keys: Tensor, values: Tensor, filled: Tensor) -> StaticLayer:
    """Make a layer of transformers' static cache out of keys and values that are there.

    ``filled``, a number on the device, counts the positions that are in use.
    """
    layer = StaticLayer(keys.shape[2])
    layer.keys, layer.values = keys, values
    layer.dtype, layer.device = keys.dtype, keys.device
    layer.cumulative_length = filled
    layer.is_initialized = True
    return layer


def check_model(llm: nn.Module) -> None:
    """Raise ValueError where layers of an LLM look back over a window: the steps look at all."""
    config = llm.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ())
    if types - {"full_attention"}:
        raise ValueError(
            f"static_cache: the LLM ({llm.config.model_type}) has layers that look back over a "
            "window (sliding attention), which a cache of fixed size is not made for; leave it out"
        )

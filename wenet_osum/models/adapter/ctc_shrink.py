"""The adapter of Soundwave (arXiv 2502.12900): CTC hears words in 25 embeddings per second, and the
LLM is given one for each run in which it hears the same.

    align    stack `factor` states · Linear · one transformer layer · LayerNorm · gain
    shrink   one of each run · + look-back attention to all that were there · LayerNorm · gain

The loss ``ctc`` is computed on what align gives, and the same scores find the runs: the class set,
its blank and the distance form are that loss's (models/ctc_scores.py). What look-back is for: a
state says which word was spoken, while voice and mood lie in the states between.

The released code differs from the paper in two places, and ``compat: released`` does as it does.
Its transformer layer is handed one utterance with time on the axis of the batch, so that a state
can look at itself alone. The mask of look-back is inverted, so that kept states see only each
other.

Letters: B utterances, N encoder states of the longest, S = ceil(N / factor) embeddings of the
longest, K kept ones, D width of the states, H width of the LLM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum.devices import to_device
from wenet_osum.models.adapter.conv_transformer import Layer, split_heads
from wenet_osum.models.label_queries import LabelQueries, front_names
from wenet_osum.models.lengths import key_mask
from wenet_osum.models.shrink import BLANKS, RUNS, check_tasks, find_runs
from wenet_osum.models.stack import check_factor, stack, stacked_lengths

COMPAT = ("intended", "released")
QUERIES = "label_queries."  # how the names of their weights begin
HEAD = 64  # channels of an attention head, unless adapter_conf gives their number


class Adapter(nn.Module):
    """Encoder states of ``input_width`` to LLM embeddings of ``output_width``.

    The keys of ``adapter_conf``: ``factor``, states per embedding before shrinking; ``heads`` and
    ``ffn`` of the layer (None: heads of 64 channels, twice the LLM's width) and ``dropout``.
    ``runs`` (first, mean) and ``blanks`` (keep, pool, drop) as in models/shrink.py; ``look_back``
    false leaves that attention out. ``unshrunk``: tasks whose speech stays as align gives it, by
    default those with word times. ``label_queries``: label fields that get an embedding of their
    own in front of the speech (models/label_queries.py). ``compat``: intended, or as released.
    Raises ValueError for values that are none of these.
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        factor: int = 2,
        heads: int | None = None,
        ffn: int | None = None,
        dropout: float = 0.1,
        runs: str = "first",
        blanks: str = "keep",
        look_back: bool = True,
        unshrunk: list[str] | tuple[str, ...] = ("srwt",),
        label_queries: list[str] | tuple[str, ...] = (),
        compat: str = "intended",
    ) -> None:
        super().__init__()
        check_factor("factor", factor)
        check_choice("runs", runs, RUNS)
        check_choice("blanks", blanks, BLANKS)
        check_choice("compat", compat, COMPAT)
        heads = check_heads(heads, output_width)
        self.stride = factor
        self.released = compat == "released"
        self.unshrunk = check_tasks(unshrunk)
        self.input = nn.Linear(input_width * factor, output_width)
        inner = ffn or 2 * output_width
        self.layer = Layer(output_width, heads, inner, dropout)
        self.norm = nn.LayerNorm(output_width)
        self.register_buffer("gain", torch.ones(()))
        self.shrinker = Shrinker(
            output_width,
            heads,
            dropout,
            runs,
            blanks,
            look_back,
            compat,
        )
        self.label_queries = None
        if label_queries:
            self.label_queries = LabelQueries(label_queries, input_width, output_width)

    @torch.no_grad()
    def initialize(self, std: float) -> None:
        """Let embeddings begin with the standard deviation ``std``, before and after shrinking.

        A fixed gain does it, as in ``linear``. Look-back begins without an effect, so that what
        CTC has aligned already is not lost when shrinking begins.
        """
        shrinker = self.shrinker
        self.gain.fill_(std)
        shrinker.gain.fill_(std)
        if shrinker.look_back is not None:
            out = shrinker.look_back.out
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
        if self.label_queries is not None:
            self.label_queries.initialize(std)

    def fit_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take over an adapter with or without label queries.

        New ones keep their initial weights; those that this adapter has no use for are left out.
        """
        own = self.state_dict()
        fitting = {}
        for name, tensor in own.items():
            if name.startswith(QUERIES):
                fitting[name] = tensor
        for name, tensor in state.items():
            if name in own or not name.startswith(QUERIES):
                fitting[name] = tensor
        return fitting

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings from ``lengths`` states before shrinking, the most that remain after it."""
        front = len(front_names(self))
        return front + stacked_lengths(lengths, self.stride)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Align states (B, N, D) of ``lengths`` (B,): embeddings (B, S, H) that CTC reads, behind
        those of label fields, and the lengths (B,) of all, on the CPU."""
        lengths = lengths.cpu()
        # A frozen encoder may be in half precision beside an adapter in float32.
        states = states.to(self.input.weight.dtype)
        stacked = stack(states, lengths, self.stride)
        hidden = self.input(stacked)
        stacked_counts = stacked_lengths(lengths, self.stride)

        # Embeddings look at each other.
        longest = hidden.shape[1]
        device = hidden.device
        if self.released:
            mask = torch.eye(longest, dtype=torch.bool, device=device)
        else:
            mask = key_mask(stacked_counts, longest, device)
        hidden = self.layer(hidden, mask)
        hidden = self.norm(hidden)
        speech = self.gain * hidden
        if self.label_queries is not None:
            labels = self.label_queries(states, lengths)
            speech = torch.cat([labels, speech], 1)
        return speech, self.output_lengths(lengths)


class Shrinker(nn.Module):
    """Makes one embedding of each run, and lets it look back at all that were there."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        runs: str,
        blanks: str,
        look_back: bool,
        compat: str,
    ) -> None:
        super().__init__()
        self.runs = runs
        self.blanks = blanks
        self.released = compat == "released"
        self.look_back: LookBack | None = None
        if look_back:
            self.look_back = LookBack(width, heads, dropout)
        self.register_buffer("gain", torch.ones(()))

    def forward(
        self, embeddings: Tensor, lengths: Tensor, labels: Tensor, blank: int, whole: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shrink embeddings (B, S, H) of ``lengths`` (B,) to (B, K, H) and theirs.

        ``labels`` (B, S) are their CTC classes, ``whole`` (B,) bool utterances that stay as they
        are; all but the embeddings lie on the CPU.
        """
        runs = find_runs(labels, lengths, blank, self.blanks, self.runs)
        # What lies behind an utterance has no weight, but might hold what no weight makes 0.
        longest = embeddings.shape[1]
        exists = torch.arange(longest) < lengths[:, None]
        nothing = ~exists[..., None]
        nothing = to_device(nothing, embeddings.device)
        embeddings = embeddings.masked_fill(nothing, 0.0)

        # An embedding of each run, which then looks back.
        weights = to_device(runs.weights, embeddings.device)
        weights = weights.to(embeddings.dtype)
        kept = weights @ embeddings
        if self.look_back is not None:
            seen = runs.firsts if self.released else exists
            kept = self._look_back(kept, embeddings, seen)
        if not bool(whole.any()):
            return kept, runs.lengths

        # The shrunk ones are computed for these too, so that each weight has its gradient in every
        # micro-batch, as DDP wants it.
        missing = longest - kept.shape[1]
        kept = functional.pad(kept, (0, 0, 0, missing))
        stays = to_device(whole, kept.device)
        stays = stays[:, None, None]
        embeddings = embeddings.to(kept)
        chosen = torch.where(stays, embeddings, kept)
        lengths = torch.where(whole, lengths, runs.lengths)
        most = int(lengths.max())
        return chosen[:, :most], lengths

    def _look_back(self, kept: Tensor, embeddings: Tensor, seen: Tensor) -> Tensor:
        """Let kept embeddings look at those ``seen`` (B, S), at unit scale, as the norm gives."""
        mask = to_device(seen, kept.device)
        mask = mask[:, None, None, :]
        query = kept / self.gain
        every = embeddings / self.gain
        found = self.look_back(query, every, mask)
        return self.gain * found


class LookBack(nn.Module):
    """Attention of kept embeddings to all of them, with a residual and a LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, kept: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Kept (B, K, H) look at embeddings (B, S, H), where mask (B, 1, 1, S) is True."""
        query = split_heads(self.query(kept), self.heads)
        key = split_heads(self.key(embeddings), self.heads)
        value = split_heads(self.value(embeddings), self.heads)
        rate = self.dropout.p if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=rate,
        )

        # Heads side by side again, then residual and norm.
        joined = attended.transpose(1, 2)
        joined = joined.flatten(2)
        changed = kept + self.out(joined)
        return self.norm(changed)


def check_heads(heads: int | None, width: int) -> int:
    """Return the attention heads of an LLM's ``width``, None: of ``HEAD`` channels each.

    Raises ValueError unless the width is a multiple of them.
    """
    if heads is None:
        heads = max(1, width // HEAD)
    if width % heads:
        raise ValueError(
            f"adapter_conf: the LLM's width {width} must be a multiple of heads {heads}"
        )
    return heads


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value``, the key ``name`` of adapter_conf, is one of ``known``."""
    if value not in known:
        listed = " or ".join(known)
        raise ValueError(f"adapter_conf: {name} {value!r} must be {listed}")

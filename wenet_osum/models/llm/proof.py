"""A proof, when a model is built, that its LLM gives the same packed as alone, and the same as
transformers' own attention.

``supported`` refuses by name what is known; this finds the rest: a layer that looks across the
border of utterances, and an argument of attention that ours would leave out. It costs two passes
over two dozen tokens.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from wenet_osum.models.llm import causal
from wenet_osum.models.llm.supported import ADVICE

# Tokens of the two utterances.
LENGTHS = (11, 13)
# Sizes of the model that stands in for one without numbers, at most.
LAYERS, VOCABULARY, FFN = 4, 64, 256


@torch.no_grad()
def check_packed(llm: PreTrainedModel) -> None:
    """Raise ValueError when two random utterances, packed, have other last states than in
    transformers' eager forward.

    Rounding costs some digits of a sum, never half of them: the bound is the root of the weights'
    precision (3e-4 in float32, 0.09 in bfloat16), relative to the states of an utterance. For
    weights without numbers (meta device) a few layers with random ones stand in; those that are
    shared out among processes are not run.
    """
    if llm.get_input_embeddings().weight.is_meta:
        with torch.device("cpu"):
            check_packed(_stand_in(llm.config))
        return
    table = llm.get_input_embeddings().weight
    if type(table.data) is not Tensor:
        return
    draw = torch.Generator().manual_seed(0)
    count = sum(LENGTHS)
    ids = torch.randint(len(table), (count,), generator=draw)
    embeddings = llm.get_input_embeddings()(ids.to(table.device))
    kind = llm.config.model_type
    try:
        packing = causal.Packing(list(LENGTHS), table.device)
        packed = causal.packed_forward(llm, embeddings, packing)  # (L, H)
        alone = _eager(llm, embeddings)  # (L, H)
    # Whatever an unknown model raises that does not expect embeddings in the place of ids, or our
    # arguments.
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{kind} cannot run packed: {error!r}; {ADVICE}") from error

    bound = torch.finfo(table.dtype).eps ** 0.5
    pairs = (packed.split(LENGTHS), alone.split(LENGTHS))
    for which, ours, theirs in zip(("first", "second"), *pairs, strict=True):
        difference = _relative_difference(ours, theirs)
        # Not "above the bound": a NaN is no proof either.
        if not difference <= bound:
            raise ValueError(
                f"{kind}: packed, the {which} of two utterances differs from "
                f"transformers' own forward by {difference:.2g} of its length, rounding explains "
                f"{bound:.1g}; it looks across utterances, or has more in its attention; {ADVICE}"
            )


def _stand_in(config: PreTrainedConfig) -> PreTrainedModel:
    """Make an LLM of the same class with few layers and tokens and random weights.

    What is computed token by token is made narrow: it cannot tell packed from alone.
    """
    config = copy.deepcopy(config)
    config.pad_token_id = None
    smaller = {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS, "intermediate_size": FFN}
    for name, most in smaller.items():
        if hasattr(config, name):
            fewer = min(most, getattr(config, name))
            setattr(config, name, fewer)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:LAYERS]

    # The draws of the run go on as if there had been none here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return causal.create(config).eval()


def _relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the length of a difference as a share of that of ``theirs``."""
    difference = ours - theirs
    ratio = difference.float().norm() / theirs.float().norm()
    return float(ratio)


def _eager(llm: PreTrainedModel, embeddings: Tensor) -> Tensor:
    """Return the last states (L, H) of the utterances beside each other, padded on the right, where
    causal attention cannot look."""
    utterances = embeddings.split(LENGTHS)
    rows = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    llm.set_attn_implementation("eager")
    try:
        output = llm.base_model(inputs_embeds=rows, use_cache=False)
    finally:
        llm.set_attn_implementation(causal.NAME)

    # Without the padding, end to end.
    found = []
    for states, length in zip(output.last_hidden_state, LENGTHS, strict=True):
        found.append(states[:length])
    return torch.cat(found)

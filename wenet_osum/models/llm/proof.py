"""A proof, when a model is built, that its LLM gives the same packed as alone, and the same as
transformers' own attention.

``supported`` refuses by name what is known; this finds the rest: a layer that looks across the
border of utterances, and an argument of attention that ours would leave out. It costs two passes
over two dozen tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wenet_osum.models.llm import causal
from wenet_osum.models.llm.supported import ADVICE

LENGTHS = (11, 13)  # tokens of the two utterances


@torch.no_grad()
def check_packed(llm: PreTrainedModel) -> None:
    """Raise ValueError when two random utterances, packed, have other last states than in
    transformers' eager forward.

    Rounding costs some digits of a sum, never half of them: the bound is the root of the weights'
    precision (3e-4 in float32, 0.09 in bfloat16), relative to the states of an utterance. Weights
    without numbers (meta device) or shared out among processes are not run.
    """
    table = llm.get_input_embeddings().weight
    if table.is_meta or type(table.data) is not Tensor:
        return
    ids = torch.randint(table.shape[0], (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    embeddings = llm.get_input_embeddings()(ids.to(table.device))
    try:
        packed = causal.packed_forward(llm, embeddings, causal.Packing(list(LENGTHS), table.device))
        alone = _eager(llm, embeddings)
    # whatever an unknown model raises that does not expect embeddings in the place of ids, or our
    # arguments
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        kind = llm.config.model_type
        raise ValueError(f"{kind} cannot run packed: {error!r}; {ADVICE}") from error
    bound = torch.finfo(table.dtype).eps ** 0.5
    pairs = zip(packed.split(LENGTHS), alone.split(LENGTHS), strict=True)
    for which, (ours, theirs) in zip(("first", "second"), pairs, strict=True):
        difference = float((ours - theirs).float().norm() / theirs.float().norm())
        # not "above the bound": a NaN is no proof either
        if not difference <= bound:
            raise ValueError(
                f"{llm.config.model_type}: packed, the {which} of two utterances differs from "
                f"transformers' own forward by {difference:.2g} of its length, rounding explains "
                f"{bound:.1g}; it looks across utterances, or has more in its attention; {ADVICE}"
            )


def _eager(llm: PreTrainedModel, embeddings: Tensor) -> Tensor:
    """Last states (L, H) of the utterances beside each other, padded on the right, where causal
    attention cannot look.
    """
    rows = torch.nn.utils.rnn.pad_sequence(embeddings.split(LENGTHS), batch_first=True)
    llm.set_attn_implementation("eager")
    try:
        hidden = llm.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state
    finally:
        llm.set_attn_implementation(causal.NAME)
    return torch.cat([states[:length] for states, length in zip(hidden, LENGTHS, strict=True)])

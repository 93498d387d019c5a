"""Which causal language models can be trained packed: those whose layers are softmax attention and
nothing that runs along the text.

A convolution, a recurrence or linear attention carries what it has read into the next utterance of
a packed sequence, and takes no ``packing`` that would keep them apart. Sinks, biases and caps
inside the softmax would be left out by our attention function.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

# Config keys that change the logits after the head, with the value that changes nothing
LOGIT_CHANGES = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}

# Entries of layer_types that packed attention computes.
SOFTMAX_LAYERS = ("full_attention", "sliding_attention")

# Entries of layer_types → what such a layer is
OTHER_LAYERS = {
    "linear_attention": "linear attention or a state space (mamba, gated delta net)",
    "hybrid": "attention beside a state space",
    "hybrid_sliding": "attention beside a state space",
    "recurrent": "a recurrence",
    "conv": "a convolution over the text",
    "chunked_attention": "attention in chunks",
}

# Parameters by the end of their names → what they belong to
TELLING_PARAMETERS = {
    "A_log": "a state space (mamba, gated delta net)",
    "sinks": "attention sinks",
    "relative_attention_bias.weight": "a position bias in attention",
}

# Arguments of an attention function that change its result, and that packed attention does not
# compute.
ATTENTION_CHANGES = {
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "position_bias": "a position bias in attention",
    "softcap": "a cap on attention's logits",
    "indices": "attention to chosen tokens only",
    "block_indices": "attention to chosen tokens only",
}

ADVICE = "choose an LLM of softmax attention alone, such as Qwen2, Qwen3, Llama, Mistral or Gemma 3"


def check_folder(config: PreTrainedConfig) -> None:
    """Raise ValueError when the causal LM of ``config``, a folder's whole config.json, cannot run
    packed or is no LLM alone.
    """
    text = config.get_text_config()
    check(text)

    # More than an LLM is what transformers would load whole under this configuration.
    kind = type(config)
    whole = MODEL_FOR_CAUSAL_LM_MAPPING.get(kind, None)
    if hasattr(config, "hidden_size") or whole is None or whole.config_class is not kind:
        return
    others = [key for key in config.sub_configs if key != "text_config"]
    parts = ", ".join(others) or "other parts"
    raise ValueError(
        f"{config.model_type} is more than an LLM, it comes with {parts}; "
        f"give the folder of its text model alone ({text.model_type})"
    )


def check(config: PreTrainedConfig) -> None:
    """Raise ValueError for an LLM that packed training would compute otherwise than transformers
    does, by its ``config``.
    """
    for name, neutral in LOGIT_CHANGES.items():
        value = getattr(config, name, neutral)
        if value not in (neutral, None):
            raise ValueError(
                f"{config.model_type} has {name} {value}, which the packed loss does not apply; "
                "choose another LLM"
            )
    layer_types = getattr(config, "layer_types", None) or ()
    others = set(layer_types)
    others -= set(SOFTMAX_LAYERS)
    if others:
        named = []
        for kind in sorted(others):
            what = OTHER_LAYERS.get(kind, "not plain softmax attention")
            named.append(f"{kind!r} ({what})")
        rows = ", ".join(named)
        raise ValueError(_refusal(config, f"layers of type {rows}"))
    if getattr(config, "alibi", False):
        raise ValueError(_refusal(config, "a position bias in attention (alibi)"))


def check_modules(llm: nn.Module) -> None:
    """Raise ValueError for modules that packed attention cannot keep apart or leaves out; needs no
    numbers (meta device).
    """
    config = llm.config
    for name, module in llm.named_modules():
        if isinstance(module, (nn.Conv1d, nn.RNNBase)):
            kind = type(module).__name__
            reason = f"a {kind} over the text ({name})"
            raise ValueError(_refusal(config, reason))
    for name, _ in llm.named_parameters():
        for ending, what in TELLING_PARAMETERS.items():
            if name.endswith(f".{ending}"):
                reason = f"{what} ({name})"
                raise ValueError(_refusal(config, reason))


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise ValueError when a layer hands packed attention an argument that it leaves out."""
    for name, what in ATTENTION_CHANGES.items():
        value = arguments.get(name)
        if value is not None:
            raise ValueError(
                f"the LLM has {what} ({name}), which packed training leaves out; {ADVICE}"
            )


def _refusal(config: PreTrainedConfig, reason: str) -> str:
    kind = config.model_type
    return (
        f"{kind} has {reason}: packed training would mix utterances or leave it out; "
        f"{ADVICE}"
    )

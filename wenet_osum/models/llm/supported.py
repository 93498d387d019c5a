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

# config keys that change the logits after the head, with the value that changes nothing
LOGIT_CHANGES = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}

# entries of layer_types that packed attention computes
SOFTMAX_LAYERS = ("full_attention", "sliding_attention")

# entries of layer_types → what such a layer is
OTHER_LAYERS = {
    "linear_attention": "linear attention or a state space (mamba, gated delta net)",
    "hybrid": "attention beside a state space",
    "hybrid_sliding": "attention beside a state space",
    "recurrent": "a recurrence",
    "conv": "a convolution over the text",
    "chunked_attention": "attention in chunks",
}

# parameters by the end of their names → what they belong to
TELLING_PARAMETERS = {
    "A_log": "a state space (mamba, gated delta net)",
    "sinks": "attention sinks",
    "relative_attention_bias.weight": "a position bias in attention",
}

# arguments of an attention function that change its result, and that packed attention does not
# compute
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
    check(config.get_text_config())
    whole = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if hasattr(config, "hidden_size") or whole is None or whole.config_class is not type(config):
        return
    others = [key for key in config.sub_configs if key != "text_config"]
    raise ValueError(
        f"{config.model_type} is more than an LLM, it comes with "
        f"{', '.join(others) or 'other parts'}; give the folder of its text model alone "
        f"({config.get_text_config().model_type})"
    )


def check(config: PreTrainedConfig) -> None:
    """Raise ValueError for an LLM that packed training would compute otherwise than transformers
    does, by its ``config``.
    """
    for name, neutral in LOGIT_CHANGES.items():
        if getattr(config, name, neutral) not in (neutral, None):
            value = getattr(config, name)
            raise ValueError(
                f"{config.model_type} has {name} {value}, which the packed loss does not apply; "
                "choose another LLM"
            )
    odd = sorted(set(getattr(config, "layer_types", None) or ()) - set(SOFTMAX_LAYERS))
    if odd:
        named = [OTHER_LAYERS.get(kind, "not plain softmax attention") for kind in odd]
        rows = ", ".join(f"{kind!r} ({what})" for kind, what in zip(odd, named, strict=True))
        raise ValueError(_refusal(config, f"layers of type {rows}"))
    if getattr(config, "alibi", False):
        raise ValueError(_refusal(config, "a position bias in attention (alibi)"))


def check_modules(llm: nn.Module) -> None:
    """Raise ValueError for modules that packed attention cannot keep apart or leaves out; needs no
    numbers (meta device).
    """
    for name, module in llm.named_modules():
        if isinstance(module, (nn.Conv1d, nn.RNNBase)):
            what = f"a {type(module).__name__} over the text"
            raise ValueError(_refusal(llm.config, f"{what} ({name})"))
    for name, _ in llm.named_parameters():
        for ending, what in TELLING_PARAMETERS.items():
            if name.endswith(f".{ending}"):
                raise ValueError(_refusal(llm.config, f"{what} ({name})"))


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise ValueError when a layer hands packed attention an argument that it leaves out."""
    for name, what in ATTENTION_CHANGES.items():
        if arguments.get(name) is not None:
            raise ValueError(
                f"the LLM has {what} ({name}), which packed training leaves out; {ADVICE}"
            )


def _refusal(config: PreTrainedConfig, reason: str) -> str:
    outcome = "packed training would mix utterances or leave it out"
    return f"{config.model_type} has {reason}: {outcome}; {ADVICE}"

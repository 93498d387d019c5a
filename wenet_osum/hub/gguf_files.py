"""A trained model as files for llama.cpp: the LLM in GGUF, and beside it what makes speech for it.

llama.cpp reads the LLM alone. Encoder, adapter and speech boundary stay with torch: their weights
lie in one file of safetensors, with the LLM's token embeddings, from which ``speech_part`` makes a
model without the LLM's layers. Its embeddings of prompt and speech are what llama.cpp goes on from.

The package ``gguf`` (requirements/llama_cpp.txt) writes the file and knows llama.cpp's names of
tensors. Keys and values are those that llama.cpp reads for the architectures named in
ARCHITECTURES.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wenet_osum.models import unread
from wenet_osum.models.osum import OsumConfig, OsumModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LLM, SPEECH = "llm.gguf", "speech.safetensors"
# llama.cpp's names of types that weights can have.
FORMS = ("f32", "f16", "q8_0", "q4_0")
# model_type of transformers → llama.cpp's name of how text is split before its BPE.
ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen2"}
# Those whose numbers share a scale, in blocks of so many.
QUANTIZED = ("q8_0", "q4_0")
BLOCK = 32
# Types of tokens in GGUF.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


def check(form: str, config: PreTrainedConfig) -> ModuleType:
    """Import ``gguf``; raises ValueError without it, and for an LLM that is not written here."""
    try:
        gguf = importlib.import_module("gguf")
    except ImportError as error:
        raise ValueError(
            f"--gguf needs gguf: pip install -r requirements/llama_cpp.txt ({error})"
        ) from None
    if form not in FORMS:
        raise ValueError(f"--gguf {form}: choose one of {', '.join(FORMS)}")
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(
            f"--gguf: the LLM is a {config.model_type!r}, and only {known} are written as GGUF"
        )
    return gguf


def write(model: OsumModel, tokenizer: PreTrainedTokenizerBase, folder: Path, form: str) -> None:
    """Write both files into ``folder``; LoRA has to be merged.

    ``form``: the type of the LLM's matrices; vectors are in float32. Raises what ``check`` raises.
    """
    gguf = check(form, model.config.llm)
    writer = gguf.GGUFWriter(folder / LLM, model.config.llm.model_type)
    _write_sizes(writer, model.config.llm)
    _write_tokenizer(writer, tokenizer, model.config.llm)
    _write_weights(writer, gguf, model.llm, form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _write_speech(model, folder / SPEECH)


def _write_sizes(writer: Any, config: PreTrainedConfig) -> None:
    """Write what llama.cpp builds the LLM from."""
    writer.add_name(Path(config.name_or_path).name or config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"--gguf: rotary positions of type {rope['rope_type']} are not written")
    writer.add_rope_freq_base(rope["rope_theta"])
    channels = getattr(config, "head_dim", None)
    if channels:
        writer.add_key_length(channels)
        writer.add_value_length(channels)


def _write_tokenizer(
    writer: Any, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> None:
    """Write the byte-level BPE; ids of the model that no token has are named as unused."""
    inside = json.loads(tokenizer.backend_tokenizer.to_str())
    if inside["model"]["type"] != "BPE":
        raise ValueError("--gguf: the tokenizer is no BPE")
    token_of = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder

    tokens, types = [], []
    for number in range(config.vocab_size):
        kind = NORMAL
        if number not in token_of:
            kind = UNUSED
        elif number in added:
            kind = CONTROL if added[number].special else USER_DEFINED
        tokens.append(token_of.get(number, f"[PAD{number}]"))
        types.append(kind)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(ARCHITECTURES[config.model_type])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = inside["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)


def _write_weights(writer: Any, gguf: ModuleType, llm: PreTrainedModel, form: str) -> None:
    """Write the weights under llama.cpp's names; tied embeddings once."""
    config = llm.config
    kind = config.model_type.upper()
    architecture = gguf.MODEL_ARCH[kind]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, weight in llm.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise ValueError(f"--gguf: llama.cpp has no name for {name}")
        packing = _form_of(weight, form)
        type_of = gguf.GGMLQuantizationType[packing]
        numbers = weight.float().numpy()
        packed = gguf.quants.quantize(numbers, type_of)
        writer.add_tensor(theirs, packed, raw_dtype=type_of)


def _form_of(weight: Tensor, form: str) -> str:
    """Return gguf's name of the type that a tensor is written in.

    Vectors stay in float32, and so do matrices whose rows are not whole blocks.
    """
    uneven = form in QUANTIZED and weight.shape[-1] % BLOCK
    if weight.dim() < 2 or uneven:
        return "F32"
    return form.upper()


def _write_speech(model: OsumModel, path: Path) -> None:
    """Write all weights but those of the LLM's layers and head."""
    kept = _without_layers(model)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name in kept:
            tensors[name] = tensor.contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def _without_layers(model: OsumModel) -> set[str]:
    """Return the names of all weights but those of the LLM's layers and head.

    Of tied embeddings only the first name is one of them.
    """
    named = model.named_parameters()
    name_of = {weight: name for name, weight in named}
    kept = set(model.state_dict())
    for layer in model.llm.base_model.layers:
        for weight in layer.parameters():
            kept.discard(name_of[weight])

    # The head has a name of its own in the state, whether it is tied or not.
    head = model.llm.get_output_embeddings()
    for name, module in model.named_modules():
        if module is head:
            kept.discard(f"{name}.weight")
    return kept


def speech_part(folder: str | Path) -> OsumModel:
    """Load what makes prompt embeddings from the files that ``write`` wrote beside config.json.

    It is the model without the LLM's layers and head, in float32: ``prompt_embeddings`` is all that
    it is for.
    """
    config = OsumConfig.from_pretrained(folder)
    config.part_dtypes = {}
    config.dtype = torch.float32
    with torch.device("meta"):
        model = OsumModel(config)
    del model.llm.base_model.layers[:]
    if not config.llm.tie_word_embeddings:
        model.llm.set_output_embeddings(nn.Identity())
    path = Path(folder) / SPEECH
    where = unread.places(model, unread.in_file(str(path)))
    if where is None:
        raise ValueError(f"{path} does not fit config.json beside it; export the model again")
    unread.fill_buffers(model, where)
    model.unread = where
    unread.read(model)
    return model.eval()

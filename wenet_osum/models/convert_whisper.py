"""Whisper checkpoints of WeNet and of openai-whisper (.pt), to and from the folders of transformers. Encoder and decoder, bit for bit.

WeNet's file is a plain state dict; openai's is ``{"dims": …, "model_state_dict": …}``. The names are facts of their code.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.utils import cached_file

from wenet_osum.models import convert
from wenet_osum.models.convert import Piece
from wenet_osum.models.whisper import CTC_FILE
from wenet_osum.text.tokenizer import load_tokenizer

NAMES = """
encoder.conv1                                encoder.embed.conv.0                          encoder.conv1
encoder.conv2                                encoder.embed.conv.2                          encoder.conv2
encoder.embed_positions.weight               encoder.embed.pos_enc.pe                      encoder.positional_embedding
encoder.layer_norm                           encoder.after_norm                            encoder.ln_post
encoder.layers.#.self_attn.q_proj            encoder.encoders.#.self_attn.linear_q         encoder.blocks.#.attn.query
encoder.layers.#.self_attn.k_proj            encoder.encoders.#.self_attn.linear_k         encoder.blocks.#.attn.key
encoder.layers.#.self_attn.v_proj            encoder.encoders.#.self_attn.linear_v         encoder.blocks.#.attn.value
encoder.layers.#.self_attn.out_proj          encoder.encoders.#.self_attn.linear_out       encoder.blocks.#.attn.out
encoder.layers.#.self_attn_layer_norm        encoder.encoders.#.norm1                      encoder.blocks.#.attn_ln
encoder.layers.#.fc1                         encoder.encoders.#.feed_forward.w_1           encoder.blocks.#.mlp.0
encoder.layers.#.fc2                         encoder.encoders.#.feed_forward.w_2           encoder.blocks.#.mlp.2
encoder.layers.#.final_layer_norm            encoder.encoders.#.norm2                      encoder.blocks.#.mlp_ln
decoder.embed_tokens                         decoder.embed.0                               decoder.token_embedding
decoder.embed_positions.weight               decoder.embed.1.pe                            decoder.positional_embedding
decoder.layer_norm                           decoder.after_norm                            decoder.ln
decoder.layers.#.self_attn.q_proj            decoder.decoders.#.self_attn.linear_q         decoder.blocks.#.attn.query
decoder.layers.#.self_attn.k_proj            decoder.decoders.#.self_attn.linear_k         decoder.blocks.#.attn.key
decoder.layers.#.self_attn.v_proj            decoder.decoders.#.self_attn.linear_v         decoder.blocks.#.attn.value
decoder.layers.#.self_attn.out_proj          decoder.decoders.#.self_attn.linear_out       decoder.blocks.#.attn.out
decoder.layers.#.self_attn_layer_norm        decoder.decoders.#.norm1                      decoder.blocks.#.attn_ln
decoder.layers.#.encoder_attn.q_proj         decoder.decoders.#.src_attn.linear_q          decoder.blocks.#.cross_attn.query
decoder.layers.#.encoder_attn.k_proj         decoder.decoders.#.src_attn.linear_k          decoder.blocks.#.cross_attn.key
decoder.layers.#.encoder_attn.v_proj         decoder.decoders.#.src_attn.linear_v          decoder.blocks.#.cross_attn.value
decoder.layers.#.encoder_attn.out_proj       decoder.decoders.#.src_attn.linear_out        decoder.blocks.#.cross_attn.out
decoder.layers.#.encoder_attn_layer_norm     decoder.decoders.#.norm2                      decoder.blocks.#.cross_attn_ln
decoder.layers.#.fc1                         decoder.decoders.#.feed_forward.w_1           decoder.blocks.#.mlp.0
decoder.layers.#.fc2                         decoder.decoders.#.feed_forward.w_2           decoder.blocks.#.mlp.2
decoder.layers.#.final_layer_norm            decoder.decoders.#.norm3                      decoder.blocks.#.mlp_ln
"""  # transformers · WeNet · openai-whisper; # is a layer's number
PARTS = ("encoder", "decoder")
LAYOUTS = {"wenet": 1, "openai": 2}  # column of NAMES
HEAD, HEAD_BIAS = "decoder.output_layer.weight", "decoder.output_layer.bias"  # WeNet's, tied to the embeddings
CTC = {"ctc.ctc_lo.weight", "ctc.ctc_lo.bias"}  # WeNet's CTC head; its blank lies inside the vocabulary, ours behind it
MULTILINGUAL, ENGLISH = 51865, 51864  # vocabularies of openai's models; the first and larger ones share the place of <|endoftext|>


@functools.cache
def _table(layout: str) -> dict[str, str]:
    rows = (line.split() for line in NAMES.strip().splitlines())
    return {row[0]: row[LAYOUTS[layout]] for row in rows}


def key_of(name: str, layout: str) -> str:
    """The key in a .pt file of ``layout`` for a parameter of transformers' Whisper, such as ``encoder.layers.3.fc1.bias``."""
    number = re.search(r"\.layers\.(\d+)\.", name)
    general = re.sub(r"(\.layers\.)\d+\.", r"\1#.", name)
    table = _table(layout)
    if general in table:
        key = table[general]
    else:
        module, _, parameter = general.rpartition(".")
        assert module in table, f"no name for {name} in layout {layout}"
        key = f"{table[module]}.{parameter}"
    return key.replace("#", number[1]) if number else key


def _first(tensor: Tensor) -> Tensor:
    return tensor[0]


def piece_of(name: str, layout: str) -> Piece:
    """Where a parameter of transformers' Whisper lies in a .pt file; WeNet's positions have a dimension more."""
    return Piece(key_of(name, layout), _first if layout == "wenet" and name.endswith("embed_positions.weight") else convert.whole)


def heads_of(width: int, heads: int | None) -> int:
    """``heads``, or as all published Whispers have them: one for 64 channels. Raises ValueError when the width does not divide."""
    if (heads is None and width % 64) or (heads is not None and (heads < 1 or width % heads)):
        raise ValueError(f"--heads {heads}: the width {width} needs a number of attention heads that divides it (unsaid: width / 64); give --heads")
    return heads or width // 64


def from_pt(
    path: str | Path, out: str | Path, tokenizer: str | None = None, heads: int | None = None, shard_bytes: int = convert.SHARD_BYTES
) -> list[str]:
    """Write a Whisper folder of transformers from WeNet's or openai-whisper's .pt; returns lines that say what was done.

    ``tokenizer``: a Whisper folder or hub name whose tokenizer goes along. ``heads``: of encoder and decoder, where the file does not
    say (WeNet's). Raises ValueError for files of another kind, keys without a place, missing ones, sizes that do not fit.
    """
    loaded = convert.open_pt(path)
    dims = loaded.get("dims") if isinstance(loaded, dict) and "model_state_dict" in loaded else None
    layout = "wenet" if dims is None else "openai"
    state = _state(loaded, path)
    words = load_tokenizer(tokenizer) if tokenizer else None
    config = _config(state, layout, dims, heads, words, path)
    pieces, shapes = _pieces(config, layout)
    unused = _unused(state, path)
    convert.check(state, pieces, shapes, unused, path, "Give a whole Whisper, encoder and decoder, as WeNet or openai-whisper saves it")
    del loaded, state
    with convert.new_folder(Path(out)) as folder:
        files = convert.write_model(folder, lambda: _state(convert.open_pt(path), path), pieces, shard_bytes)
        config.save_pretrained(folder)
        _generation(config, tokenizer).save_pretrained(folder)
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
        if words is not None:
            words.save_pretrained(str(folder))
    sizes = f"width {config.d_model}, {config.encoder_attention_heads} heads"
    said = [f"{out}: Whisper of {layout}'s layout, {sizes}, {len(pieces)} tensors in {len(files)} file(s)"]
    said += [f"left out: {', '.join(sorted(unused - {HEAD}))}"] if unused - {HEAD} else []
    return said + ([] if words is not None else ["no tokenizer written; phase 1 needs one beside the model: --tokenizer DIR_OR_HUB adds it"])


def _state(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    inner = isinstance(loaded, dict) and "model_state_dict" in loaded
    return convert.state_of(loaded["model_state_dict"] if inner else loaded, path)


def _unused(state: dict[str, Tensor], path: str | Path) -> set[str]:
    """Known keys without a place. Raises ValueError when one of them carries something that would be lost."""
    convert.same(state, HEAD, "decoder.embed.0.weight", path)
    if HEAD_BIAS in state and state[HEAD_BIAS].any():
        raise ValueError(f"{path}: {HEAD_BIAS!r} is not zero, and a Whisper's head has no bias; set it to zero in the file if its loss is acceptable")
    return state.keys() & (CTC | {HEAD, HEAD_BIAS})


def _config(state: dict[str, Tensor], layout: str, dims: dict[str, int] | None, heads: int | None, words: Any, path: str | Path) -> WhisperConfig:
    """The configuration read off the tensors; heads from ``dims`` where there are any."""

    def at(name: str, axis: int) -> int:
        return convert.size(state, key_of(name, layout), axis, path)

    width, vocabulary = at("encoder.conv1.weight", 0), at("decoder.embed_tokens.weight", 0)
    heads = dict.fromkeys(PARTS, heads_of(width, heads)) if dims is None else _stated_heads(dims, path)
    positions = {part: at(f"{part}.embed_positions.weight", 1 if layout == "wenet" else 0) for part in PARTS}
    layers = {part: convert.count(state, key_of(f"{part}.layers.0.fc1.weight", layout).split("0.")[0]) for part in PARTS}
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=at("encoder.conv1.weight", 1),
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=heads["encoder"],
        decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=at("encoder.layers.0.fc1.weight", 0),
        decoder_ffn_dim=at("decoder.layers.0.fc1.weight", 0),
        max_source_positions=positions["encoder"],
        max_target_positions=positions["decoder"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
        architectures=["WhisperForConditionalGeneration"],
        dtype=state[key_of("encoder.conv1.weight", layout)].dtype,
        **_special_ids(vocabulary, words, path),
    )


def _stated_heads(dims: Any, path: str | Path) -> dict[str, int]:
    """Attention heads as openai-whisper's file states them."""
    if not isinstance(dims, dict) or not {"n_audio_head", "n_text_head"} <= dims.keys():
        raise ValueError(f"{path}: 'dims' must name n_audio_head and n_text_head, got {dims!r:.80}; give a file of openai-whisper")
    return {"encoder": dims["n_audio_head"], "decoder": dims["n_text_head"]}


def _special_ids(vocabulary: int, words: Any, path: str | Path) -> dict[str, int]:
    """Where a text starts and ends: by the tokenizer, or by openai's two vocabularies."""
    if words is not None:
        if len(words) > vocabulary:
            ids = f"--tokenizer {words.name_or_path} has {len(words)} ids"
            raise ValueError(f"{ids}, {path} embeddings for {vocabulary}; give the one that belongs to it")
        end, start = words.eos_token_id, words.convert_tokens_to_ids("<|startoftranscript|>")
        start = words.bos_token_id if start in (None, words.unk_token_id) else start
        if end is None or start is None:
            raise ValueError(f"--tokenizer {words.name_or_path} names no start or end of text; give a Whisper's")
    elif vocabulary >= ENGLISH:
        end = 50257 if vocabulary >= MULTILINGUAL else 50256
        start = end + 1
    else:
        raise ValueError(f"{path} has {vocabulary} tokens, openai's Whispers {ENGLISH} or more, so its start and end are unknown; give --tokenizer")
    return {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}


def _generation(config: WhisperConfig, source: str | None) -> GenerationConfig:
    """Generation settings of the folder that the tokenizer comes from, else the plain ones."""
    try:
        return GenerationConfig.from_pretrained(source) if source else GenerationConfig.from_model_config(config)
    except (OSError, ValueError):  # a tokenizer alone
        return GenerationConfig.from_model_config(config)


def _pieces(config: WhisperConfig, layout: str) -> tuple[dict[str, Piece], dict[str, tuple[int, ...]]]:
    """For each tensor of a Whisper folder its place in a .pt file, and its shape. The head is the embeddings, so it is not written."""
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    return {name: piece_of(name.removeprefix("model."), layout) for name in shapes}, shapes


def to_pt(source: str | Path, out: str | Path, layout: str) -> list[str]:
    """Write the Whisper in a transformers folder or under a hub name as a .pt file of WeNet's or openai-whisper's layout; returns lines to print."""
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists; give another --out, or remove it")
    config = _whisper_config(source)
    tensors = _weights(source)
    pieces, shapes = _pieces(config, layout)
    plain = {name: Piece(name) for name in pieces}
    convert.same(tensors, "proj_out.weight", "model.decoder.embed_tokens.weight", source)
    convert.check(tensors, plain, shapes, tensors.keys() & {"proj_out.weight"}, source, "Give a whole Whisper folder of transformers")
    state = {piece.key: tensors[name][None] if piece.cut is _first else tensors[name] for name, piece in pieces.items()}
    content = state if layout == "wenet" else {"dims": _dims(config), "model_state_dict": state}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    torch.save(content, temporary)
    temporary.rename(out)
    said = [f"{out}: {len(state)} tensors in {layout}'s layout"]
    return said + ([f"left out: {CTC_FILE}"] if (Path(source) / CTC_FILE).exists() else [])


def _whisper_config(source: str | Path) -> WhisperConfig:
    try:
        config = AutoConfig.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise ValueError(f"no model in {str(source)!r}: {error}; give a Whisper folder of transformers, or a hub name") from None
    if config.model_type != "whisper":
        raise ValueError(f"{source} holds a model of type {config.model_type!r}, not a Whisper; give a folder of phase 1 or of transformers")
    return config


def _weights(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a folder or hub name as they are stored; from_pretrained would bring them to one dtype."""
    one = cached_file(str(source), convert.WEIGHTS, _raise_exceptions_for_missing_entries=False)
    if one:
        return load_file(one)
    index = cached_file(str(source), convert.INDEX, _raise_exceptions_for_missing_entries=False)
    if not index:
        raise ValueError(f"{source} has neither {convert.WEIGHTS} nor {convert.INDEX}; give a folder with safetensors")
    files = sorted(set(convert.read_index(index).values()))
    return {name: tensor for file in files for name, tensor in load_file(cached_file(str(source), file)).items()}


def _dims(config: WhisperConfig) -> dict[str, int]:
    """openai-whisper's ``ModelDimensions``."""
    if {config.encoder_ffn_dim, config.decoder_ffn_dim} != {4 * config.d_model}:
        sizes = f"{config.encoder_ffn_dim} and {config.decoder_ffn_dim}"
        raise ValueError(f"feed-forward widths {sizes}: openai-whisper knows only 4 x {config.d_model}; write WeNet's layout (--to_wenet_pt)")
    return {
        "n_mels": config.num_mel_bins,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }

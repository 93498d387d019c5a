"""Whisper checkpoints of WeNet and of openai-whisper (.pt), to and from the folders of
transformers. Encoder and decoder, bit for bit.

WeNet's file is a plain state dict; openai's is ``{"dims": …, "model_state_dict": …}``. Which tensor
has which name stands in whisper_names.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.utils import cached_file

from wenet_osum.models import convert
from wenet_osum.models.convert import Piece, Shapes
from wenet_osum.models.whisper import CTC_FILE
from wenet_osum.models.whisper_names import first, key_of, piece_of
from wenet_osum.text.tokenizer import load_tokenizer

PARTS = ("encoder", "decoder")
# WeNet's, tied to the embeddings.
HEAD, HEAD_BIAS = "decoder.output_layer.weight", "decoder.output_layer.bias"
# WeNet's CTC head; its blank lies inside the vocabulary, ours behind it.
CTC = {"ctc.ctc_lo.weight", "ctc.ctc_lo.bias"}
# Vocabularies of openai's models; the first and larger ones share the place of <|endoftext|>.
MULTILINGUAL, ENGLISH = 51865, 51864
# The head of transformers' Whisper, tied to the embeddings.
PROJ_OUT = "proj_out.weight"


def heads_of(width: int, heads: int | None) -> int:
    """Return ``heads``, or as all published Whispers have them: one for 64 channels.

    Raises ValueError when the width does not divide.
    """
    wanted = width // 64 if heads is None else heads
    fits = wanted >= 1 and width % wanted == 0
    if heads is None and width % 64:
        fits = False
    if not fits:
        raise ValueError(
            f"--heads {heads}: the width {width} needs a number of attention heads that divides "
            "it (unsaid: width / 64); give --heads"
        )
    return wanted


def from_pt(
    path: str | Path,
    out: str | Path,
    tokenizer: str | None = None,
    heads: int | None = None,
    shard_bytes: int = convert.SHARD_BYTES,
) -> list[str]:
    """Write a Whisper folder of transformers from WeNet's or openai-whisper's .pt; returns lines
    that say what was done.

    ``tokenizer``: a Whisper folder or hub name whose tokenizer goes along. ``heads``: of encoder
    and decoder, where the file does not say (WeNet's). Raises ValueError for files of another kind,
    keys without a place, missing ones, sizes that do not fit.
    """
    words = load_tokenizer(tokenizer) if tokenizer else None
    source, pieces, config, unused = _match(path, heads, words)
    with convert.new_folder(Path(out)) as folder:
        files = convert.write_model(folder, partial(_read, path), pieces, shard_bytes)
        config.save_pretrained(folder)
        _generation(config, tokenizer).save_pretrained(folder)
        extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        extractor.save_pretrained(folder)
        if words is not None:
            words.save_pretrained(str(folder))

    sizes = f"width {config.d_model}, {config.encoder_attention_heads} heads"
    written = f"{len(pieces)} tensors in {len(files)} file(s)"
    said = [f"{out}: Whisper of {source}'s layout, {sizes}, {written}"]
    unused.discard(HEAD)
    if unused:
        said.append(f"left out: {', '.join(sorted(unused))}")
    if words is None:
        said.append(
            "no tokenizer written; phase 1 needs one beside the model: --tokenizer DIR_OR_HUB adds "
            "it"
        )
    return said


def _match(
    path: str | Path, heads: int | None, words: Any
) -> tuple[str, dict[str, Piece], WhisperConfig, set[str]]:
    """Find the layout of a file, where each tensor of a Whisper lies in it, its configuration, and
    the keys without a place. The file is closed again on return."""
    loaded = convert.open_pt(path)
    dims = loaded.get("dims") if _is_openai(loaded) else None
    layout = "wenet" if dims is None else "openai"
    state = _state(loaded, path)
    sizes = Sizes(path, state, layout)
    config = _config(sizes, dims, heads, words)
    pieces, shapes = _pieces(config, layout)
    unused = _unused(state, path)
    rule = "Give a whole Whisper, encoder and decoder, as WeNet or openai-whisper saves it"
    convert.check(state, pieces, shapes, unused, path, rule)
    return layout, pieces, config, unused


def _is_openai(loaded: Any) -> bool:
    """Return whether a file has openai-whisper's form."""
    return isinstance(loaded, dict) and "model_state_dict" in loaded


def _state(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a file of either form."""
    if _is_openai(loaded):
        loaded = loaded["model_state_dict"]
    return convert.state_of(loaded, path)


def _read(path: str | Path) -> dict[str, Tensor]:
    """Open a file."""
    loaded = convert.open_pt(path)
    return _state(loaded, path)


def _unused(state: dict[str, Tensor], path: str | Path) -> set[str]:
    """Return the known keys without a place.

    Raises ValueError when one of them carries something that would be lost.
    """
    convert.same(state, HEAD, "decoder.embed.0.weight", path)
    if HEAD_BIAS in state and state[HEAD_BIAS].any():
        raise ValueError(
            f"{path}: {HEAD_BIAS!r} is not zero, and a Whisper's head has no bias; "
            "set it to zero in the file if its loss is acceptable"
        )
    known = {*CTC, HEAD, HEAD_BIAS}
    return state.keys() & known


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Whisper, read off the tensors of a file by transformers' names."""

    path: str | Path
    state: dict[str, Tensor]
    layout: str

    def of(self, name: str, axis: int) -> int:
        """Return a size of a tensor. Raises ValueError when the file lacks it."""
        key = key_of(name, self.layout)
        return convert.size(self.state, key, axis, self.path)

    def positions(self, part: str) -> int:
        """Return how many positions a part has; WeNet's have a dimension more before them."""
        axis = 1 if self.layout == "wenet" else 0
        return self.of(f"{part}.embed_positions.weight", axis)

    def layers(self, part: str) -> int:
        """Return how many layers a part has."""
        key = key_of(f"{part}.layers.0.fc1.weight", self.layout)
        prefix, _, _ = key.partition("0.")
        return convert.count(self.state, prefix)


def _config(sizes: Sizes, dims: Any, heads: int | None, words: Any) -> WhisperConfig:
    """Make the configuration read off the tensors; heads from ``dims`` where there are any."""
    width = sizes.of("encoder.conv1.weight", 0)
    vocabulary = sizes.of("decoder.embed_tokens.weight", 0)
    if dims is None:
        heads_of_part = dict.fromkeys(PARTS, heads_of(width, heads))
    else:
        heads_of_part = _stated_heads(dims, sizes.path)
    one_key = key_of("encoder.conv1.weight", sizes.layout)
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=sizes.of("encoder.conv1.weight", 1),
        d_model=width,
        encoder_layers=sizes.layers("encoder"),
        decoder_layers=sizes.layers("decoder"),
        encoder_attention_heads=heads_of_part["encoder"],
        decoder_attention_heads=heads_of_part["decoder"],
        encoder_ffn_dim=sizes.of("encoder.layers.0.fc1.weight", 0),
        decoder_ffn_dim=sizes.of("decoder.layers.0.fc1.weight", 0),
        max_source_positions=sizes.positions("encoder"),
        max_target_positions=sizes.positions("decoder"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        architectures=["WhisperForConditionalGeneration"],
        dtype=sizes.state[one_key].dtype,
        **_special_ids(vocabulary, words, sizes.path),
    )


def _stated_heads(dims: Any, path: str | Path) -> dict[str, int]:
    """Return the attention heads as openai-whisper's file states them."""
    if not isinstance(dims, dict) or not {"n_audio_head", "n_text_head"} <= dims.keys():
        raise ValueError(
            f"{path}: 'dims' must name n_audio_head and n_text_head, got {dims!r:.80}; "
            "give a file of openai-whisper"
        )
    return {"encoder": dims["n_audio_head"], "decoder": dims["n_text_head"]}


def _special_ids(vocabulary: int, words: Any, path: str | Path) -> dict[str, int]:
    """Say where a text starts and ends: by the tokenizer, or by openai's two vocabularies."""
    if words is not None:
        start, end = _ids_of(words, vocabulary, path)
    elif vocabulary >= ENGLISH:
        end = 50257 if vocabulary >= MULTILINGUAL else 50256
        start = end + 1
    else:
        raise ValueError(
            f"{path} has {vocabulary} tokens, openai's Whispers {ENGLISH} or more, so its start "
            "and end are unknown; give --tokenizer"
        )
    return {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
    }


def _ids_of(words: Any, vocabulary: int, path: str | Path) -> tuple[int, int]:
    """Return the start and the end of a text by a tokenizer.

    Raises ValueError for one with more tokens than the file, or without a start or an end.
    """
    if len(words) > vocabulary:
        raise ValueError(
            f"--tokenizer {words.name_or_path} has {len(words)} ids, {path} embeddings for "
            f"{vocabulary}; give the one that belongs to it"
        )
    end = words.eos_token_id
    start = words.convert_tokens_to_ids("<|startoftranscript|>")
    if start in (None, words.unk_token_id):
        start = words.bos_token_id
    if end is None or start is None:
        raise ValueError(
            f"--tokenizer {words.name_or_path} names no start or end of text; give a Whisper's"
        )
    return start, end


def _generation(config: WhisperConfig, source: str | None) -> GenerationConfig:
    """Return the generation settings of the folder that the tokenizer comes from, else the plain
    ones."""
    if source is not None:
        try:
            return GenerationConfig.from_pretrained(source)
        # A tokenizer alone.
        except (OSError, ValueError):
            pass
    return GenerationConfig.from_model_config(config)


def _pieces(config: WhisperConfig, layout: str) -> tuple[dict[str, Piece], Shapes]:
    """Return for each tensor of a Whisper folder its place in a .pt file, and its shape.

    The head is the embeddings, so it is not written.
    """
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    pieces: dict[str, Piece] = {}
    shapes: Shapes = {}
    for name, tensor in model.state_dict().items():
        if name != PROJ_OUT:
            pieces[name] = piece_of(name.removeprefix("model."), layout)
            shapes[name] = tuple(tensor.shape)
    return pieces, shapes


def to_pt(source: str | Path, out: str | Path, layout: str) -> list[str]:
    """Write the Whisper in a transformers folder or under a hub name as a .pt file of WeNet's or
    openai-whisper's layout; returns lines to print."""
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists; give another --out, or remove it")
    config = _whisper_config(source)
    tensors = _weights(source)
    pieces, shapes = _pieces(config, layout)
    plain = {name: Piece(name) for name in pieces}
    unused = tensors.keys() & {PROJ_OUT}
    convert.same(tensors, PROJ_OUT, "model.decoder.embed_tokens.weight", source)
    rule = "Give a whole Whisper folder of transformers"
    convert.check(tensors, plain, shapes, unused, source, rule)

    state = {}
    for name, piece in pieces.items():
        tensor = tensors[name]
        # What is cut off on the way in.
        if piece.cut is first:
            tensor = tensor[None]
        state[piece.key] = tensor
    content: dict[str, Any] = state
    if layout == "openai":
        content = {"dims": _dims(config), "model_state_dict": state}
    _write_pt(content, out)
    said = [f"{out}: {len(state)} tensors in {layout}'s layout"]
    if cached_file(str(source), CTC_FILE, _raise_exceptions_for_missing_entries=False):
        said.append(f"left out: {CTC_FILE}")
    return said


def _write_pt(content: dict[str, Any], out: Path) -> None:
    """Write a .pt file that is there when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    torch.save(content, temporary)
    temporary.rename(out)


def _whisper_config(source: str | Path) -> WhisperConfig:
    try:
        config = AutoConfig.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no model in {str(source)!r}: {error}; "
            "give a Whisper folder of transformers, or a hub name"
        ) from None
    if config.model_type != "whisper":
        raise ValueError(
            f"{source} holds a model of type {config.model_type!r}, not a Whisper; "
            "give a folder of phase 1 or of transformers"
        )
    return config


def _weights(source: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a folder or hub name as they are stored; from_pretrained would bring them
    to one dtype."""
    name = str(source)
    one = cached_file(name, convert.WEIGHTS, _raise_exceptions_for_missing_entries=False)
    if one:
        return load_file(one)
    index = cached_file(name, convert.INDEX, _raise_exceptions_for_missing_entries=False)
    if not index:
        raise ValueError(
            f"{source} has neither {convert.WEIGHTS} nor {convert.INDEX}; "
            "give a folder with safetensors"
        )
    files = set(convert.read_index(index).values())
    tensors = {}
    for file in sorted(files):
        tensors |= load_file(cached_file(name, file))
    return tensors


def _dims(config: WhisperConfig) -> dict[str, int]:
    """Return openai-whisper's ``ModelDimensions``."""
    widths = {config.encoder_ffn_dim, config.decoder_ffn_dim}
    if widths != {4 * config.d_model}:
        raise ValueError(
            f"feed-forward widths {config.encoder_ffn_dim} and {config.decoder_ffn_dim}: "
            f"openai-whisper knows only 4 x {config.d_model}; "
            "write WeNet's layout (--to_wenet_pt)"
        )
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

"""Map the names of Whisper's tensors among transformers, WeNet and openai-whisper.

The names are facts of their code.
"""

from __future__ import annotations

import functools
import re

from torch import Tensor

from wenet_osum.models.convert import Piece

# Each table: transformers · WeNet · openai-whisper.
OUTSIDE = """
encoder.conv1                   encoder.embed.conv.0      encoder.conv1
encoder.conv2                   encoder.embed.conv.2      encoder.conv2
encoder.embed_positions.weight  encoder.embed.pos_enc.pe  encoder.positional_embedding
encoder.layer_norm              encoder.after_norm        encoder.ln_post
decoder.embed_tokens            decoder.embed.0           decoder.token_embedding
decoder.embed_positions.weight  decoder.embed.1.pe        decoder.positional_embedding
decoder.layer_norm              decoder.after_norm        decoder.ln
"""
# What names of a layer begin with; # is its number.
STACKS = """
encoder.layers.#  encoder.encoders.#  encoder.blocks.#
decoder.layers.#  decoder.decoders.#  decoder.blocks.#
"""
IN_EVERY_LAYER = """
self_attn.q_proj      self_attn.linear_q    attn.query
self_attn.k_proj      self_attn.linear_k    attn.key
self_attn.v_proj      self_attn.linear_v    attn.value
self_attn.out_proj    self_attn.linear_out  attn.out
self_attn_layer_norm  norm1                 attn_ln
fc1                   feed_forward.w_1      mlp.0
fc2                   feed_forward.w_2      mlp.2
"""
IN_ENCODER_LAYERS = """
final_layer_norm  norm2  mlp_ln
"""
IN_DECODER_LAYERS = """
encoder_attn.q_proj      src_attn.linear_q    cross_attn.query
encoder_attn.k_proj      src_attn.linear_k    cross_attn.key
encoder_attn.v_proj      src_attn.linear_v    cross_attn.value
encoder_attn.out_proj    src_attn.linear_out  cross_attn.out
encoder_attn_layer_norm  norm2                cross_attn_ln
final_layer_norm         norm3                mlp_ln
"""
# Column of the tables.
LAYOUTS = {"wenet": 1, "openai": 2}


@functools.cache
def _table(layout: str) -> dict[str, str]:
    """Return transformers' name → the name in a layout, # in the place of a layer's number."""
    column = LAYOUTS[layout]
    names = {}
    for row in _rows(OUTSIDE):
        names[row[0]] = row[column]

    # Each stack has its own rows beside those of every layer.
    encoder, decoder = _rows(STACKS)
    stacks = [
        (encoder, IN_ENCODER_LAYERS),
        (decoder, IN_DECODER_LAYERS),
    ]
    for stack, own in stacks:
        prefix = stack[column]
        for row in _rows(IN_EVERY_LAYER) + _rows(own):
            name = f"{stack[0]}.{row[0]}"
            names[name] = f"{prefix}.{row[column]}"
    return names


def _rows(table: str) -> list[list[str]]:
    lines = table.strip().split("\n")
    rows = []
    for line in lines:
        rows.append(line.split())
    return rows


def key_of(name: str, layout: str) -> str:
    """Return the key in a .pt file of ``layout`` for a parameter of transformers' Whisper, such as
    ``encoder.layers.3.fc1.bias``."""
    number = re.search(r"\.layers\.(\d+)\.", name)
    general = re.sub(r"(\.layers\.)\d+\.", r"\1#.", name)
    table = _table(layout)
    if general in table:
        key = table[general]
    else:
        module, _, parameter = general.rpartition(".")
        assert module in table, f"no name for {name} in layout {layout}"
        key = f"{table[module]}.{parameter}"
    if number is None:
        return key
    return key.replace("#", number[1])


def first(tensor: Tensor) -> Tensor:
    """Return a tensor without its first dimension, which is 1."""
    return tensor[0]


def piece_of(name: str, layout: str) -> Piece:
    """Say where a parameter of transformers' Whisper lies in a .pt file; WeNet's positions have a
    dimension more."""
    key = key_of(name, layout)
    if layout == "wenet" and name.endswith("embed_positions.weight"):
        return Piece(key, first)
    return Piece(key)

#!/usr/bin/env python3
"""How much memory the conversion of a published OSUM takes, on a file of the real key table at a
fraction of its width.

    python tools/bench/convert_memory.py --divisor 8

Prints one table. The bound is 1.2 x the largest file written + 2 GiB; at a fraction of the width
the 2 GiB alone would hide a fault, so the table also has what the conversion takes beyond the
libraries it imports, to be set beside the largest file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from side_by_side import status  # noqa: E402

GIB = 1024**3


@dataclass
class Sizes:
    """Sizes of a checkpoint; the defaults are the published ones."""

    width: int = 1024
    encoder_layers: int = 24
    ffn: int = 4096
    mels: int = 80
    positions: int = 1500
    adapter_layers: int = 4
    adapter_ffn: int = 2560
    llm_width: int = 3584
    llm_layers: int = 28
    llm_ffn: int = 18944
    llm_heads: int = 28
    llm_kv_heads: int = 4
    vocabulary: int = 152064
    speech_tokens: int = 4097
    lora_rank: int = 8  # 0: none

    def divided(self, by: int) -> Sizes:
        """The same with widths divided; layers, vocabulary and heads stay."""
        names = ("width", "ffn", "adapter_ffn", "llm_width", "llm_ffn")
        return Sizes(**asdict(self) | {name: getattr(self, name) // by for name in names})


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")


def published(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published infer.pt, without the repeated embeddings; positions are among
    them.
    """
    return dict([*_speech(sizes), *_llm(sizes)])


def _linear(
    name: str, outputs: int, inputs: int, bias: bool = True
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{part}", (width,)) for part in ("weight", "bias"))


def _layer(
    name: str, width: int, ffn: int, key_bias: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("q", "k", "v", "out"):
        yield from _linear(
            f"{name}.self_attn.linear_{part}",
            width,
            width,
            key_bias or part != "k",
        )
    yield from _linear(f"{name}.feed_forward.w_1", ffn, width)
    yield from _linear(f"{name}.feed_forward.w_2", width, ffn)
    yield from (*_norm(f"{name}.norm1", width), *_norm(f"{name}.norm2", width))


def _convolution(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.weight", (outputs, inputs, 3)), (f"{name}.bias", (outputs,)))


def _speech(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = sizes.width
    yield from _convolution("encoder.embed.conv.0", width, sizes.mels)
    yield from _convolution("encoder.embed.conv.2", width, width)
    yield "encoder.embed.pos_enc.pe", (1, sizes.positions, width)
    yield from _norm("encoder.after_norm", width)
    for number in range(sizes.encoder_layers):
        yield from _layer(
            f"encoder.encoders.{number}",
            width,
            sizes.ffn,
            key_bias=False,
        )
    yield from _norm("ln_speech", width)
    for place in (1, 4, 7):
        yield from _convolution(f"down_sample_2.conv.{place}", width, width)
    yield from (
        *_linear("speech_transformer.embed.out.0", width, width),
        *_norm("speech_transformer.embed.out.1", width),
    )
    yield "speech_transformer.embed.pos_enc.pe", (1, 5000, width)
    yield from _norm("speech_transformer.after_norm", width)
    for number in range(sizes.adapter_layers):
        yield from _layer(
            f"speech_transformer.encoders.{number}", width, sizes.adapter_ffn, key_bias=True
        )
    yield from _linear("speech_llama_proj", sizes.llm_width, width)
    yield "speech_token_emded.weight", (sizes.speech_tokens + 2, sizes.llm_width)
    yield from _linear("speaker_head", sizes.speech_tokens, sizes.llm_width)


def _llm(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix = "llama_model.base_model.model." if sizes.lora_rank else "llama_model."
    width = sizes.llm_width
    ffn = sizes.llm_ffn
    keys = sizes.llm_width // sizes.llm_heads * sizes.llm_kv_heads
    shapes = {
        "q_proj": (width, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "o_proj": (width, width),
    }
    shapes |= {"gate_proj": (ffn, width), "up_proj": (ffn, width), "down_proj": (width, ffn)}
    yield f"{prefix}model.embed_tokens.weight", (sizes.vocabulary, width)
    for number in range(sizes.llm_layers):
        layer = f"{prefix}model.layers.{number}"
        for module, (outputs, inputs) in shapes.items():
            name = f"{layer}.{'self_attn' if module[0] in 'qkvo' else 'mlp'}.{module}"
            adapted = sizes.lora_rank and module in LORA_TARGETS
            yield from _linear(
                f"{name}.base_layer" if adapted else name, outputs, inputs, bias=module[0] in "qkv"
            )
            if adapted:
                yield f"{name}.lora_A.default.weight", (sizes.lora_rank, inputs)
                yield f"{name}.lora_B.default.weight", (outputs, sizes.lora_rank)
        yield from (
            (f"{layer}.{norm}.weight", (width,))
            for norm in ("input_layernorm", "post_attention_layernorm")
        )
    yield f"{prefix}model.norm.weight", (width,)
    yield f"{prefix}lm_head.weight", (sizes.vocabulary, width)


def with_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the LLM's embeddings and head repeated outside it, as published."""
    ends = {
        name: key
        for key in state
        for name in ("embed_tokens.weight", "lm_head.weight")
        if key.endswith(f".{name}")
    }
    return state | {name: state[key] for name, key in ends.items()}


def sinusoids(length: int, width: int) -> Tensor:
    """The adapter's positions (1, length, width): sines in even channels, cosines in odd ones."""
    angles = torch.arange(length)[:, None] * 10000.0 ** (
        -torch.arange(
            0,
            width,
            2,
        )
        / width
    )
    return torch.stack([angles.sin(), angles.cos()], dim=-1).view(1, length, width)


def write_sources(folder: str, sizes: Sizes, dtype: torch.dtype) -> None:
    """``folder/infer.pt`` with zeros for weights, and ``folder/llm``: configuration and a small
    tokenizer.
    """
    from transformers import Qwen2Config

    from wenet_osum.small.train_tokenizer import train_tokenizer

    state = {key: torch.zeros(shape, dtype=dtype) for key, shape in published(sizes).items()}
    name = "speech_transformer.embed.pos_enc.pe"
    state[name] = sinusoids(5000, sizes.width).to(dtype)
    torch.save(with_aliases(state), f"{folder}/infer.pt")
    tokenizer = train_tokenizer(["a line of text"], vocab_size=300)
    tokenizer.save_pretrained(f"{folder}/llm")
    config = Qwen2Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.llm_width,
        intermediate_size=sizes.llm_ffn,
        num_hidden_layers=sizes.llm_layers,
        num_attention_heads=sizes.llm_heads,
        num_key_value_heads=sizes.llm_kv_heads,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config.save_pretrained(f"{folder}/llm")


class Peak(threading.Thread):
    """Watches the process's memory without file pages, which ``getrusage`` cannot tell apart."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Look every 5 ms until told to stop."""
        while not self.over.wait(0.005):
            self.private = max(self.private, status("RssAnon"))


def main(argv: list[str] | None = None) -> int:
    """Make a file in another process, convert it in this one, print the table; 1 when the bound is
    passed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--divisor", type=int, default=8, help="widths are the published ones divided by this"
    )
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the file"
    )
    parser.add_argument(
        "--shard_gib",
        type=float,
        default=0.14,
        help="largest file to write; one such tensor, the embeddings, is 0.127 GiB at 1/8",
    )
    parser.add_argument("--dir", help="where the files go (default: a temporary folder)")
    args = parser.parse_args(argv)
    sizes = Sizes().divided(args.divisor)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        maker = multiprocessing.get_context("spawn").Process(
            target=write_sources, args=(folder, sizes, getattr(torch, args.dtype))
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        return report(Path(folder), sizes, args)


def report(folder: Path, sizes: Sizes, args: argparse.Namespace) -> int:
    """Convert and print."""
    import peft  # noqa: F401  # it is imported on the way; so it counts as a library

    from wenet_osum.models import convert_osum

    libraries = status("VmRSS")
    private = status("RssAnon")
    watch = Peak()
    watch.start()
    shard = int(args.shard_gib * GIB)
    heads = max(1, sizes.width // 64)
    convert_osum.from_osum(
        folder / "infer.pt", str(folder / "llm"), folder / "out", heads=heads, shard_bytes=shard
    )
    watch.over.set()
    watch.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    files = (folder / "out").glob("*.safetensors")
    written = [path.stat().st_size for path in files]
    bound = 1.2 * max(written) + 2 * GIB
    rows = {
        f"infer.pt, {args.dtype}, widths / {args.divisor}": (folder / "infer.pt").stat().st_size,
        f"largest of {len(written)} files written": max(written),
        "resident before the conversion (libraries)": libraries,
        "peak resident, file pages included": peak,
        "beyond the libraries": peak - libraries,
        "beyond them, without file pages": max(0, watch.private - private),
        "bound: 1.2 x largest file + 2 GiB": bound,
    }
    print(
        "| | GiB |\n|---|---|",
        *(f"| {name} | {value / GIB:.3f} |" for name, value in rows.items()),
        sep="\n",
    )
    if peak < bound:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())

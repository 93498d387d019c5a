#!/usr/bin/env python3
"""Parts of a training step beside the way they were done before: time and peak memory.

    python tools/bench/step_ways.py --rounds 5

attention       one kernel for all utterances of a micro-batch, beside a call per utterance
ctc head        factors in bfloat16 and softmax in float32, beside a table copied to float32
lora inputs     one dropout for the layers that read an input, beside peft's one per layer
encoder states  side by side in memory after the convolutions, beside transposed
adapter heads   of at most 256 channels, which flash attention runs, beside four of 320
compiled        layers of the LLM by torch.compile, beside as they are

Each is a forward and a backward pass. On a GPU the shapes are those of Whisper large and Qwen2-7B
in bfloat16, times are wall clock around a synchronized device, peaks are the allocator's. On a CPU
shapes are small, times are CPU seconds in float32, and peaks are counted: bytes of all tensors that
live at once. What is computed in bfloat16 has no time there, for most CPUs do not multiply it, and
there is no kernel for attention. That both ways compute the same is checked before they are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from decode_rate import any_device  # noqa: E402
from transformers import Qwen2Config, WhisperConfig  # noqa: E402
from way_race import HEAD, Measured, Work, both, measure, rows  # noqa: E402

from wenet_osum.config import LoraConfig  # noqa: E402
from wenet_osum.models import compiled, lora, lora_input  # noqa: E402
from wenet_osum.models.adapter.conv_transformer import Layer  # noqa: E402
from wenet_osum.models.ctc_scores import normed  # noqa: E402
from wenet_osum.models.encoder.whisper import Encoder  # noqa: E402
from wenet_osum.models.heads import HEADS, fitting_heads  # noqa: E402
from wenet_osum.models.llm import causal  # noqa: E402
from wenet_osum.models.losses import ctc  # noqa: E402
from wenet_osum.models.objective import Speech  # noqa: E402


@dataclass(frozen=True)
class Sizes:
    """The shapes of a micro-batch and of the layers."""

    # Utterances, and of each: tokens in the LLM, encoder states, tokens of the transcript.
    utterances: int
    tokens: int
    states: int
    transcript: int
    # Of the LLM.
    width: int
    heads: int
    key_heads: int
    ffn: int
    vocabulary: int
    # Of the encoder.
    encoder_width: int
    encoder_heads: int
    layers: int = 2


REAL = Sizes(14, 164, 400, 30, 3584, 28, 4, 18944, 152064, 1280, 20)
SMALL = Sizes(4, 60, 200, 12, 256, 8, 2, 768, 8000, 256, 4)
TINY = Sizes(2, 12, 20, 3, 32, 4, 2, 48, 100, 32, 2)


@dataclass
class Setting:
    """Where and in what shapes ways are measured."""

    sizes: Sizes
    device: torch.device
    backend: str = "inductor"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of frozen weights and of what is computed."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def cast(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast as in training in bfloat16."""
        half = self.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def random(self, *shape: int) -> Tensor:
        """Normal numbers."""
        draw = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=draw).to(self.device, self.dtype)


def attention(setting: Setting) -> Iterator[Work]:
    """Query, key and value of the heads of an LLM."""
    if setting.device.type == "cpu":
        return
    sizes = setting.sizes
    channels = sizes.width // sizes.heads
    lengths = [sizes.tokens] * sizes.utterances
    packing = causal.Packing(lengths, setting.device)
    heads = sizes.heads + 2 * sizes.key_heads
    parts = (sizes.heads, sizes.key_heads, sizes.key_heads)
    given = setting.random(1, heads, sum(lengths), channels)
    scale = channels**-0.5

    def kernel(states: Tensor) -> Tensor:
        query, key, value = states.split(parts, 1)
        return causal._varlen(query, key, value, packing, scale, None)

    def loop(states: Tensor) -> Tensor:
        query, key, value = states.split(parts, 1)
        return causal._per_segment(query, key, value, packing, scale, 0.0, None)

    ways = {
        "one kernel": both(kernel, given),
        "a call per utterance": both(loop, given),
    }
    yield Work("attention", ways, 0.05)


def ctc_head(setting: Setting) -> Iterator[Work]:
    """CTC among all tokens of a frozen LLM, whose table is in bfloat16."""
    sizes, device = setting.sizes, setting.device
    rows = sizes.utterances
    states = sizes.states // 4
    table = setting.random(sizes.vocabulary, sizes.width)
    table = table.bfloat16()
    given = setting.random(rows, states, sizes.width)
    lengths = torch.full((rows,), states)
    counts = torch.full((rows,), sizes.transcript)
    total = rows * sizes.transcript
    ids = torch.arange(1, 1 + total) % sizes.vocabulary
    ids = ids.to(device)
    targets = {"transcript_ids": ids, "transcript_ids_lengths": counts}
    loss = ctc.Loss(None)

    def ours(states: Tensor) -> Tensor:
        speech = Speech(states, lengths, 0.08, lambda: None, 0, table)
        with torch.autocast(device.type, torch.bfloat16):
            return loss(speech, targets).values

    def before(states: Tensor) -> Tensor:
        wide = table.float()
        logits = normed(states) @ wide.T
        logs = logits.log_softmax(-1)
        values, _ = ctc.ctc_losses(logs, lengths, ids, counts, 0)
        return values

    ways = {
        "product in bfloat16": both(ours, given),
        "table in float32": both(before, given),
    }
    yield Work("ctc head", ways, 0.02, timed=device.type != "cpu")


def llm_of(setting: Setting, with_lora: bool) -> nn.Module:
    """Layers of an LLM: frozen, with LoRA or without."""
    sizes = setting.sizes
    config = Qwen2Config(
        vocab_size=16,
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
    )
    torch.manual_seed(0)
    llm = causal.create(config)
    llm.to(setting.dtype)
    llm.requires_grad_(False)
    if with_lora:
        conf = LoraConfig(r=8, dropout=0.1)
        lora.add(llm, conf)
    for name, parameter in llm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_()
    llm.to(setting.device)
    return llm.train()


def packed(llm: nn.Module, setting: Setting) -> Callable[[], Tensor]:
    """Return what runs the layers over a pack."""
    sizes = setting.sizes
    lengths = [sizes.tokens] * sizes.utterances
    given = setting.random(sum(lengths), sizes.width)
    multiple = getattr(llm, "multiple", 1)

    def run(states: Tensor) -> Tensor:
        packing = causal.Packing(lengths, setting.device, multiple)
        with setting.cast():
            return causal.packed_forward(llm, states, packing)

    return both(run, given)


def lora_inputs(setting: Setting) -> Iterator[Work]:
    """LoRA in all of its default targets."""
    ours = packed(llm_of(setting, True), setting)
    share = lora_input.share
    lora_input.share = lambda llm, name: None
    theirs = packed(llm_of(setting, True), setting)
    lora_input.share = share
    ways = {"shared": ours, "one per layer (peft)": theirs}
    yield Work("lora inputs", ways, 0.0, compared=False)


def encoder_states(setting: Setting) -> Iterator[Work]:
    """Layers of a trained encoder on both layouts."""
    sizes = setting.sizes
    config = WhisperConfig(
        d_model=sizes.encoder_width,
        encoder_layers=sizes.layers,
        encoder_attention_heads=sizes.encoder_heads,
        encoder_ffn_dim=4 * sizes.encoder_width,
        vocab_size=16,
    )
    torch.manual_seed(0)
    encoder = Encoder(config)
    encoder.to(setting.device)
    encoder.train()
    lengths = torch.full((sizes.utterances,), sizes.states)
    given = setting.random(sizes.utterances, sizes.states, sizes.encoder_width)

    def run(states: Tensor) -> Tensor:
        with setting.cast():
            return encoder._run_layers(states, lengths, 0, sizes.layers)

    def transposed(states: Tensor) -> Tensor:
        turned = states.transpose(1, 2).contiguous()
        return run(turned.transpose(1, 2))

    ways = {
        "side by side": both(run, given),
        "transposed": both(transposed, given),
    }
    yield Work("encoder states", ways, 0.05)


def adapter_heads(setting: Setting) -> Iterator[Work]:
    """A layer of an adapter behind a Whisper large, at its width on a CPU too."""
    width = REAL.encoder_width
    states = setting.sizes.states // 4
    given = setting.random(setting.sizes.utterances, states, width)

    def layer(heads: int) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        made = Layer(width, heads, width, 0.0)
        made.to(setting.device)

        def run(hidden: Tensor) -> Tensor:
            with setting.cast():
                return made(hidden, None)

        return both(run, given)

    fitting = fitting_heads(width)
    ways = {f"{fitting} heads": layer(fitting), f"{HEADS} heads": layer(HEADS)}
    yield Work("adapter heads", ways, 0.0, compared=False)


def compiled_layers(setting: Setting) -> Iterator[Work]:
    """Frozen layers of an LLM, through which gradients pass."""
    fast = llm_of(setting, False)
    holder = nn.Module()
    holder.llm = fast
    holder.encoder = nn.Module()
    compiled.compile_layers(holder, setting.backend)
    ways = {
        "compiled": packed(fast, setting),
        "as they are": packed(llm_of(setting, False), setting),
    }
    yield Work("compiled", ways, 0.05)


WORKS = (attention, ctc_head, lora_inputs, encoder_states, adapter_heads, compiled_layers)


def measure_all(setting: Setting, rounds: int, works: list[str] | None = None) -> list[Measured]:
    """Measure all works, or those named."""
    found = []
    for make in WORKS:
        if works and make.__name__ not in works:
            continue
        for work in make(setting):
            found += measure(work, setting.device, rounds)
    return found


def setting_of(rehearse: bool = False) -> Setting:
    """The shapes that the device is for; tiny ones in a rehearsal, where nothing is compiled to
    machine code."""
    device = any_device()
    if rehearse:
        return Setting(TINY, device, "eager")
    return Setting(SMALL if device.type == "cpu" else REAL, device)


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    names = [make.__name__ for make in WORKS]
    args.add_argument("--works", nargs="+", choices=names, help="default: all")
    args.add_argument("--tiny", action="store_true", help="that the command runs")
    given = args.parse_args(argv)
    torch.set_num_threads(given.threads)
    setting = setting_of(given.tiny)
    print(f"{setting.device}, torch {torch.__version__}, {setting.sizes}")
    print(*HEAD, *rows(measure_all(setting, given.rounds, given.works)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

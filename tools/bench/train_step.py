#!/usr/bin/env python3
"""A training step and its parts, ours against named alternatives on the same utterances.

    python tools/bench/train_step.py --width 256 --layers 4 --vocabulary 32000 --rounds 5

Raced are the packed step, the head and the encoder. Every way is checked to give the same loss (or
states) before it is timed (side_by_side.py). Random weights and features; float32 on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from side_by_side import products, race, show  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import Qwen2Config, WhisperConfig  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from wenet_osum.models.loss import token_losses  # noqa: E402
from wenet_osum.models.osum import OsumConfig, OsumModel  # noqa: E402
from wenet_osum.records import Batch  # noqa: E402

PROMPT = 12  # tokens
WHOLE = 3000  # frames of 30 s


def build(args: argparse.Namespace) -> OsumModel:
    """A speech LLM of the asked sizes; adapter and encoder train."""
    heads = max(2, args.width // 64)
    stack = {
        "encoder_layers": args.layers,
        "decoder_layers": 1,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    whisper = WhisperConfig(
        vocab_size=50,
        d_model=args.width,
        encoder_ffn_dim=4 * args.width,
        decoder_ffn_dim=args.width,
        **stack,
        **ids,
    )
    width = {
        "hidden_size": args.width,
        "intermediate_size": 5 * args.width,
        "num_attention_heads": heads,
        "num_key_value_heads": 1,
    }
    llm = Qwen2Config(
        vocab_size=args.vocabulary,
        num_hidden_layers=args.layers,
        **width,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=0,
    )
    torch.manual_seed(0)
    config = OsumConfig(
        encoder=whisper.to_dict(),
        llm=llm.to_dict(),
        adapter_conf={"layers": 1, "heads": 4, "ffn": args.width, "dropout": 0.0},
    )
    model = OsumModel(config).float()
    model.llm.requires_grad_(False)
    model.encoder.embed_positions.requires_grad_(False)
    return model.train()


def utterances(args: argparse.Namespace) -> list[dict[str, Tensor]]:
    """Return features, prompt and answer of each utterance.

    Lengths are as in a window sorted by length: a stretch of neighbors.
    """
    draws = np.random.default_rng(0)
    window = draws.lognormal(np.log(500), 0.6, 40 * args.utterances)
    window = np.clip(window, 100, 2900).astype(int)
    window.sort()
    first = int(draws.integers(10, 30)) * args.utterances
    rows = []
    for frames in window[first : first + args.utterances].tolist():
        tokens = int(draws.integers(5, max(6, frames // 20)))
        row = {
            "features": torch.randn(frames, 80),
            "prompt": torch.randint(1, args.vocabulary, (PROMPT,)),
            "answer": torch.randint(1, args.vocabulary, (tokens,)),
        }
        rows.append(row)
    return rows


def packed(model: OsumModel, rows: list[dict[str, Tensor]], whole: bool = False) -> Tensor:
    """Return the mean loss of our forward.

    ``whole`` pads the features to 30 s and takes all of it for speech, as a plain Whisper encoder
    does.
    """
    features = _features(rows)
    if whole:
        features = _to_30_s(features)
    output = model(_batch(rows, features, whole))
    return output.loss / output.weight


def _features(rows: list[dict[str, Tensor]]) -> Tensor:
    """Pad the features to the longest: (batch, frames, mels)."""
    return pad_sequence([row["features"] for row in rows], batch_first=True)


def _to_30_s(features: Tensor) -> Tensor:
    """Pad features (batch, frames, mels) to 30 s."""
    missing = WHOLE - features.shape[1]
    return functional.pad(features, (0, 0, 0, missing))


def _batch(rows: list[dict[str, Tensor]], features: Tensor, whole: bool) -> Batch:
    """Return a batch as collate makes it; ``whole`` takes 30 s of every row for speech."""
    frames = [WHOLE if whole else len(row["features"]) for row in rows]
    prompts = [row["prompt"] for row in rows]
    answers = [row["answer"] for row in rows]
    names = [""] * len(rows)
    answer_ids = torch.cat(answers)
    return Batch(
        keys=names,
        tasks=names,
        features=features,
        feature_lengths=torch.tensor(frames),
        prompt_ids=torch.cat(prompts),
        prompt_lengths=_lengths(prompts),
        answer_ids=answer_ids,
        answer_lengths=_lengths(answers),
        answer_weights=torch.ones(len(answer_ids)),
    )


def _lengths(parts: list[Tensor]) -> Tensor:
    return torch.tensor([len(part) for part in parts])


def padded(model: OsumModel, rows: list[dict[str, Tensor]], whole: bool = False) -> Tensor:
    """Return the mean loss with right-padded rows, a mask, and logits at every position.

    That is what ``labels=`` of transformers does.
    """
    batch = _batch(rows, _features(rows), whole)
    if whole:
        batch.features = _to_30_s(batch.features)
    speech, lengths = model.padded_speech(batch.features, batch.feature_lengths)
    embed = model.get_input_embeddings()
    before = model.speech_boundary.weight[:1]
    after = model.speech_boundary.weight[1:]

    # A row is prompt, speech between its borders, answer; loss is taken at the answer alone.
    parts = []
    labels = []
    for row, heard, length in zip(rows, speech, lengths.tolist(), strict=True):
        prompt = embed(row["prompt"])
        answer = embed(row["answer"])
        parts.append(torch.cat([prompt, before, heard[:length], after, answer]))
        unscored = torch.full((PROMPT + 2 + length,), -100)
        labels.append(torch.cat([unscored, row["answer"]]))

    masks = [torch.ones(len(part), dtype=torch.long) for part in parts]
    output = model.llm(
        inputs_embeds=pad_sequence(parts, batch_first=True),
        attention_mask=pad_sequence(masks, batch_first=True),
        labels=pad_sequence(labels, batch_first=True, padding_value=-100),
        use_cache=False,
    )
    return output.loss


def bench_step(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """Race forward and backward; encoder and adapter train."""

    def step(way: Callable[..., Tensor], whole: bool = False) -> float:
        model.zero_grad(set_to_none=True)
        loss = way(model, rows, whole)
        loss.backward()
        return loss.item()

    def ours() -> float:
        return step(packed)

    work = f"step, {len(rows)} utterances"
    longest = "rows padded to the longest, all logits"
    ways = {"ours": ours, longest: lambda: step(padded)}
    found = race(work, ways, _close, args.rounds, {longest: 2.5}, _limit(ours))

    # On 30 s the losses are others than ours on true lengths: they are compared on 30 s.
    theirs = "30 s of speech, padded rows, all logits"
    difference = abs(step(packed, whole=True) - step(padded, whole=True))
    assert difference < 1e-3, f"ours, on 30 s and {theirs} differ"
    ways = {"ours": ours, theirs: lambda: step(padded, whole=True)}
    found += race(work, ways, lambda one, other: None, args.rounds, {theirs: 4})
    return found


def bench_head(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """Race head and cross-entropy, forward and backward.

    They run at the answers against at every position in float32.
    """
    answers = torch.cat([row["answer"] for row in rows])
    speech = sum(-(-len(row["features"]) // 8) for row in rows)
    total = len(answers) + speech + len(rows) * (PROMPT + 2)
    hidden = torch.randn(total, args.width, requires_grad=True)
    labels = torch.full((total,), -100)
    labels[: len(answers)] = answers

    def ours() -> float:
        nll, _ = token_losses(model.llm.lm_head, hidden[: len(answers)], answers)
        nll.mean().backward()
        return nll.mean().item()

    def everywhere() -> float:
        logits = model.llm.lm_head(hidden).float()
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        return loss.item()

    work = f"head, {len(answers)} of {total} positions"
    ways = {"ours": ours, "all positions": everywhere}
    return race(work, ways, _close, args.rounds, limit=_limit(ours))


def bench_encoder(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """Race the encoder's forward on true lengths against 30 s.

    There it runs with our mask, which gives the same states, and as transformers does it, without
    one.
    """
    features = _features(rows)
    lengths = _lengths([row["features"] for row in rows])
    whole = _to_30_s(features)
    channels_first = whole.transpose(1, 2)
    encoder = model.encoder.eval()

    @torch.no_grad()
    def run() -> list[Tensor]:
        states, sizes = encoder(features, lengths)
        return _cut(states, sizes)

    @torch.no_grad()
    def masked() -> list[Tensor]:
        sizes = encoder.output_lengths(lengths)
        mask = torch.arange(WHOLE // 2) < sizes[:, None]
        hidden = encoder._convolve(channels_first, lengths) + encoder.embed_positions.weight
        for layer in encoder.layers:
            hidden = layer(hidden, mask[:, None, None])
        return _cut(encoder.layer_norm(hidden), sizes)

    @torch.no_grad()
    def theirs() -> Tensor:
        return WhisperEncoder.forward(encoder, channels_first).last_hidden_state

    def same(ours: list[Tensor], other: list[Tensor] | Tensor) -> None:
        if isinstance(other, list):
            for one, another in zip(ours, other, strict=True):
                assert torch.allclose(one, another, atol=1e-4), "masked states differ"
            return
        # Theirs hears the padding: to be the same, ours has to hear it as well.
        everything, _ = encoder(whole, torch.full_like(lengths, WHOLE))
        assert torch.allclose(everything, other, atol=1e-4), "states of 30 s differ"

    ways = {
        "ours": run,
        "30 s, masked": masked,
        "30 s, WhisperEncoder of transformers": theirs,
    }
    work = f"encoder forward, {len(rows)} utterances"
    found = race(work, ways, same, args.rounds, limit=_limit(run))
    model.train()
    return found


def _cut(states: Tensor, sizes: Tensor) -> list[Tensor]:
    """Take the padding off: (frames, width) each."""
    pairs = zip(states, sizes.tolist(), strict=True)
    return [row[:size] for row, size in pairs]


def _limit(way: Callable[[], Any]) -> tuple[str, Callable[[], None]]:
    """The FLOPs of a way as bare matrix products."""
    with FlopCounterMode(display=False) as counter:
        way()
    return "its FLOPs as matrix products", products(counter.get_total_flops())


def _close(a: float, b: float) -> None:
    assert abs(a - b) < 1e-3, f"losses {a} and {b}"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256, help="of encoder and LLM")
    parser.add_argument("--layers", type=int, default=4, help="of each")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = build(args)
    rows = utterances(args)
    lines = []
    for bench in (bench_step, bench_head, bench_encoder):
        lines += bench(model, rows, args)
    show(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())

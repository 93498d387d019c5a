#!/usr/bin/env python3
"""A training step and its parts, ours against named alternatives on the same utterances: packed
step, head, encoder.

    python tools/bench/train_step.py --width 256 --layers 4 --vocabulary 32000 --rounds 5

Every way is checked to give the same loss (or states) before it is timed (side_by_side.py). Random
weights and features; float32 on the CPU.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from side_by_side import products, race, show  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import Qwen2Config, WhisperConfig  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from wenet_osum.models.loss import token_losses  # noqa: E402
from wenet_osum.models.osum import OsumConfig, OsumModel  # noqa: E402
from wenet_osum.records import Batch  # noqa: E402

PROMPT, WHOLE = 12, 3000  # tokens; frames of 30 s


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
    """Features, prompt and answer of each, lengths as in a window sorted by length: a stretch of
    neighbors.
    """
    draw = np.random.default_rng(0)
    frames = np.sort(
        np.clip(draw.lognormal(np.log(500), 0.6, 40 * args.utterances), 100, 2900).astype(int)
    )
    first = int(draw.integers(10, 30)) * args.utterances
    return [
        {
            "features": torch.randn(n, 80),
            "prompt": torch.randint(1, args.vocabulary, (PROMPT,)),
            "answer": torch.randint(1, args.vocabulary, (int(draw.integers(5, max(6, n // 20))),)),
        }
        for n in frames[first : first + args.utterances].tolist()
    ]


def packed(model: OsumModel, rows: list[dict[str, Tensor]], whole: bool = False) -> Tensor:
    """Mean loss of our forward; ``whole`` pads the features to 30 s and takes all of it for speech,
    as a plain Whisper encoder does.
    """
    features = torch.nn.utils.rnn.pad_sequence([r["features"] for r in rows], batch_first=True)
    output = model(
        _batch(
            rows,
            functional.pad(features, (0, 0, 0, WHOLE - features.shape[1])) if whole else features,
            whole,
        )
    )
    return output.loss / output.weight


def _batch(rows: list[dict[str, Tensor]], features: Tensor, whole: bool) -> Batch:
    lengths = {
        f"{name}_lengths": torch.tensor([len(r[name]) for r in rows])
        for name in ("prompt", "answer")
    }
    ids = {f"{name}_ids": torch.cat([r[name] for r in rows]) for name in ("prompt", "answer")}
    frames = torch.tensor([WHOLE if whole else len(r["features"]) for r in rows])
    weights = torch.ones(len(ids["answer_ids"]))
    names = [""] * len(rows)
    return Batch(
        keys=names,
        tasks=names,
        features=features,
        feature_lengths=frames,
        answer_weights=weights,
        **ids,
        **lengths,
    )


def padded(model: OsumModel, rows: list[dict[str, Tensor]], whole: bool = False) -> Tensor:
    """Mean loss with right-padded rows, a mask, logits at every position: what ``labels=`` of
    transformers does.
    """
    batch = _batch(
        rows,
        torch.nn.utils.rnn.pad_sequence([r["features"] for r in rows], batch_first=True),
        whole,
    )
    if whole:
        batch.features = functional.pad(batch.features, (0, 0, 0, WHOLE - batch.features.shape[1]))
    speech, lengths = model.padded_speech(batch.features, batch.feature_lengths)
    embed, border, parts, labels = (
        model.get_input_embeddings(),
        model.speech_boundary.weight,
        [],
        [],
    )
    for row, heard, n in zip(rows, speech, lengths.tolist(), strict=True):
        parts.append(
            torch.cat(
                [embed(row["prompt"]), border[:1], heard[:n], border[1:], embed(row["answer"])]
            )
        )
        labels.append(torch.cat([torch.full((PROMPT + 2 + n,), -100), row["answer"]]))
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(p), dtype=torch.long) for p in parts], batch_first=True
    )
    embeddings = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return model.llm(
        inputs_embeds=embeddings, attention_mask=mask, labels=targets, use_cache=False
    ).loss


def bench_step(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """Forward and backward; encoder and adapter train."""

    def step(way) -> float:
        model.zero_grad(set_to_none=True)
        loss = way()
        loss.backward()
        return loss.item()

    ways = {
        "ours": lambda: step(lambda: packed(model, rows)),
        "rows padded to the longest, all logits": lambda: step(lambda: padded(model, rows)),
    }
    limit = _limit(ways["ours"])
    found = race(
        f"step, {len(rows)} utterances",
        ways,
        _close,
        args.rounds,
        {"rows padded to the longest, all logits": 2.5},
        limit,
    )
    ours, theirs = "ours, on 30 s", "30 s of speech, padded rows, all logits"
    assert (
        abs(step(lambda: packed(model, rows, True)) - step(lambda: padded(model, rows, True)))
        < 1e-3
    ), f"{ours} and {theirs} differ"
    long = {"ours": ways["ours"], theirs: lambda: step(lambda: padded(model, rows, True))}
    return found + race(
        f"step, {len(rows)} utterances", long, lambda a, b: None, args.rounds, {theirs: 4}
    )


def bench_head(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """Head and cross-entropy, forward and backward: at the answers against at every position in
    float32.
    """
    speech = [-(-len(r["features"]) // 8) for r in rows]
    answers = torch.cat([r["answer"] for r in rows])
    total = len(answers) + sum(speech) + len(rows) * (PROMPT + 2)
    hidden = torch.randn(total, args.width, requires_grad=True)
    labels = torch.full((total,), -100)
    labels[: len(answers)] = answers

    def ours() -> float:
        nll, _ = token_losses(model.llm.lm_head, hidden[: len(answers)], answers)
        nll.mean().backward()
        return nll.mean().item()

    def whole() -> float:
        loss = functional.cross_entropy(model.llm.lm_head(hidden).float(), labels)
        loss.backward()
        return loss.item()

    return race(
        f"head, {len(answers)} of {total} positions",
        {"ours": ours, "all positions": whole},
        _close,
        args.rounds,
        limit=_limit(ours),
    )


def bench_encoder(
    model: OsumModel, rows: list[dict[str, Tensor]], args: argparse.Namespace
) -> list[str]:
    """The encoder's forward on true lengths against 30 s: with our mask, which gives the same
    states, and as transformers does it, without one.
    """
    features = torch.nn.utils.rnn.pad_sequence([r["features"] for r in rows], batch_first=True)
    lengths = torch.tensor([len(r["features"]) for r in rows])
    whole, full = (
        functional.pad(features, (0, 0, 0, WHOLE - features.shape[1])),
        torch.full_like(lengths, WHOLE),
    )
    encoder = model.encoder.eval()

    @torch.no_grad()
    def run() -> list[Tensor]:
        states, sizes = encoder(features, lengths)
        return [s[:n] for s, n in zip(states, sizes.tolist(), strict=True)]

    @torch.no_grad()
    def masked() -> list[Tensor]:
        sizes, mask = encoder.output_lengths(lengths), torch.arange(WHOLE // 2)
        hidden = encoder._convolve(whole.transpose(1, 2), lengths) + encoder.embed_positions.weight
        for layer in encoder.layers:
            hidden = layer(hidden, (mask < sizes[:, None])[:, None, None])
        return [s[:n] for s, n in zip(encoder.layer_norm(hidden), sizes.tolist(), strict=True)]

    @torch.no_grad()
    def theirs() -> Tensor:
        return WhisperEncoder.forward(encoder, whole.transpose(1, 2)).last_hidden_state

    def same(ours: Any, other: Any) -> None:
        if isinstance(other, list):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, other, strict=True)), (
                "masked states differ"
            )
        else:  # it hears the padding: to be the same, ours has to hear it as well
            assert torch.allclose(encoder(whole, full)[0], other, atol=1e-4), (
                "states of 30 s differ"
            )

    ways = {"ours": run, "30 s, masked": masked, "30 s, WhisperEncoder of transformers": theirs}
    found = race(
        f"encoder forward, {len(rows)} utterances", ways, same, args.rounds, limit=_limit(run)
    )
    model.train()
    return found


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
    model, rows = build(args), utterances(args)
    show(
        [
            line
            for bench in (bench_step, bench_head, bench_encoder)
            for line in bench(model, rows, args)
        ]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

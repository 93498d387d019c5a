"""The kernel for packed sequences is what runs in bfloat16, whatever trains and by whatever engine.

No GPU is here, so that a reference in float32 stands in for the kernel, and the check of the device
is lifted; what else has to hold for the kernel, dtypes above all, is checked by the stand-in.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen3Config, WhisperConfig

from wenet_osum import dist
from wenet_osum.config import BatchConfig, OptimConfig, PartConfig, TrainConfig
from wenet_osum.config.tables import LoraConfig
from wenet_osum.models import trainable
from wenet_osum.models.llm import causal
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.records import Batch
from wenet_osum.train.optim import make_optimizer
from wenet_osum.train.rehearse import rehearse

WIDTH, LAYERS, VOCABULARY = 32, 2, 64
FAMILIES = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}
TRAINED = {
    "frozen": ["adapter.*"],
    "lora": ["adapter.*", "*lora*"],
    "full": ["adapter.*", "speech_boundary.*", "llm.*"],
}


class Kernel:
    """Attention of each utterance in float32, by its definition; counts calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        borders: Tensor,
        key_borders: Tensor,
        longest: int,
        longest_key: int,
        scale: float,
        window_size: tuple[int, int],
    ) -> Tensor:
        self.calls += 1
        assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
        assert query.shape == key.shape == value.shape
        assert borders.dtype == torch.int32 and window_size == (-1, 0)
        ends = borders.tolist()
        assert longest == longest_key == max(b - a for a, b in zip(ends, ends[1:], strict=False))
        parts = []
        for start, end in zip(ends, ends[1:], strict=False):
            q, k, v = (x[start:end].transpose(0, 1).float() for x in (query, key, value))
            scores = scale * q @ k.mT
            ahead = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
            weights = scores.masked_fill(ahead, -torch.inf).softmax(-1)
            parts.append((weights @ v).transpose(0, 1))
        return torch.cat(parts).to(query.dtype)


@pytest.fixture
def world():
    """A process group of this process only."""
    yield dist.start(1)
    dist.stop()


@pytest.fixture
def kernel(monkeypatch):
    """The stand-in, where a GPU would have its own."""
    stand_in = Kernel()
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", stand_in)
    monkeypatch.setattr(causal, "_lacking", lambda device: None)
    return stand_in


def tiny_model(family: str, lora: bool) -> OsumModel:
    heads = {"encoder_attention_heads": 2, "encoder_layers": 1, "encoder_ffn_dim": 32}
    whisper = WhisperConfig(d_model=16, num_mel_bins=8, vocab_size=20, **heads)
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": LAYERS}
    llm = FAMILIES[family](
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        head_dim=8,
        initializer_range=0.3,
        eos_token_id=1,
        tie_word_embeddings=True,
        **sizes,
    )
    torch.manual_seed(5)
    adapter = {"layers": 1, "heads": 2, "ffn": 32, "dropout": 0.0}
    config = OsumConfig(encoder=whisper.to_dict(), llm=llm.to_dict(), adapter_conf=adapter)
    model = OsumModel(config)
    if lora:
        model.add_lora(LoraConfig(r=2, dropout=0.0))
    return model


def batch() -> Batch:
    draw = torch.Generator().manual_seed(2)
    frames, prompts, answers = (torch.tensor(x) for x in ([61, 50, 33], [3, 2, 4], [5, 3, 4]))
    exists = torch.arange(61) < frames[:, None]
    return Batch(
        keys=["a", "b", "c"],
        tasks=["asr"] * 3,
        features=torch.randn(3, 61, 8, generator=draw) * exists[..., None],
        feature_lengths=frames,
        prompt_ids=torch.randint(3, VOCABULARY, (9,), generator=draw),
        prompt_lengths=prompts,
        answer_ids=torch.randint(3, VOCABULARY, (12,), generator=draw),
        answer_lengths=answers,
        answer_weights=torch.ones(12),
    )


def engine_of(family: str, trains: str, engine: str, world: dist.World) -> dist.Engine:
    model = tiny_model(family, trains == "lora")
    parts = {pattern: PartConfig() for pattern in TRAINED[trains]}
    trainable.apply_train_parts(model, parts, OptimConfig())
    model.train()
    return dist.Engine(model, TrainConfig(dtype="bfloat16", engine=engine), world)


def losses_and_gradients(engine: dist.Engine) -> tuple[Tensor, Tensor]:
    """Token losses of the batch, and all gradients end to end."""
    with engine.accumulating(last=True):
        output = engine.loss(batch())
        output.loss.backward()
    found = []
    for parameter in engine.module.parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            found.append(whole.float().flatten())
    engine.module.zero_grad()
    return output.nll, torch.cat(found)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("trains", [*TRAINED])
@pytest.mark.parametrize("family", [*FAMILIES])
def test_the_kernel_runs_whatever_trains(family, trains, engine, world, kernel, monkeypatch):
    """One call per layer, with the losses and the gradients of attention utterance by utterance."""
    runner = engine_of(family, trains, engine, world)
    nll, gradient = losses_and_gradients(runner)
    assert kernel.calls == LAYERS

    monkeypatch.setattr(causal, "_lacking", lambda device: "a kernel")
    plain_nll, plain_gradient = losses_and_gradients(runner)
    assert kernel.calls == LAYERS, "the way utterance by utterance calls no kernel"
    torch.testing.assert_close(nll, plain_nll, atol=0.1, rtol=0.02)
    assert nll.std() > 0.5, "tokens that cost the same would not tell utterances apart"
    error = (gradient - plain_gradient).norm() / plain_gradient.norm()
    assert error < 0.05, f"gradients differ by {error:.3f} of their norm"


def test_a_rehearsal_says_once_what_attention_ran(world, kernel, monkeypatch):
    runner = engine_of("qwen2", "full", "ddp", world)
    group = {"params": [p for p in runner.module.parameters() if p.requires_grad], "lr": 1.0}
    optimizer = make_optimizer([group], OptimConfig(), world.device)
    budget = BatchConfig()
    told = rehearse(runner, [batch(), batch()], budget, optimizer).splitlines()
    assert told[1:] == ["attention: one kernel for all utterances of a micro-batch (varlen_attn)"]
    assert kernel.calls == 3 * LAYERS

    monkeypatch.setattr(causal, "_lacking", lambda device: "it is a T4")
    told = rehearse(runner, [batch()], budget, optimizer).splitlines()
    assert len(told) == 2 and told[1].endswith("cannot run: it is a T4")

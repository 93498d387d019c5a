"""torch.compile of layers: the same numbers, and nothing is compiled again for another length."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Qwen2Config, WhisperConfig

from wenet_osum import dist
from wenet_osum.config import OptimConfig, PartConfig, TrainConfig
from wenet_osum.config.tables import LoraConfig
from wenet_osum.models import compiled, trainable
from wenet_osum.models.build import set_checkpointing
from wenet_osum.models.llm import causal
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.records import Batch

VOCABULARY, MELS = 64, 8


class Graphs:
    """A backend that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def model() -> OsumModel:
    sizes = {"d_model": 16, "num_mel_bins": MELS, "encoder_layers": 1, "encoder_ffn_dim": 32}
    whisper = WhisperConfig(encoder_attention_heads=2, vocab_size=20, **sizes)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    llm = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, eos_token_id=1, **heads
    )
    adapter = {"layers": 1, "heads": 2, "ffn": 32, "dropout": 0.0}
    config = OsumConfig(encoder=whisper.to_dict(), llm=llm.to_dict(), adapter_conf=adapter)
    torch.manual_seed(0)
    made = OsumModel(config)
    made.add_lora(LoraConfig(r=2, dropout=0.0))
    parts = {name: PartConfig() for name in ("adapter.*", "encoder.*", "*lora*")}
    trainable.apply_train_parts(made, parts, OptimConfig())
    return made.train()


def batch(frames: list[int]) -> Batch:
    draw = torch.Generator().manual_seed(2)
    count, longest = len(frames), max(frames)
    lengths = torch.tensor(frames)
    exists = torch.arange(longest) < lengths[:, None]
    return Batch(
        keys=["a"] * count,
        tasks=["asr"] * count,
        features=torch.randn(count, longest, MELS, generator=draw) * exists[..., None],
        feature_lengths=lengths,
        prompt_ids=torch.randint(3, VOCABULARY, (3 * count,), generator=draw),
        prompt_lengths=torch.full((count,), 3),
        answer_ids=torch.randint(3, VOCABULARY, (4 * count,), generator=draw),
        answer_lengths=torch.full((count,), 4),
        answer_weights=torch.ones(4 * count),
    )


def passed(module, given: Batch):
    """Token losses, and all gradients."""
    output = module(given)
    output.loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return output.nll, gradients


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_give_the_same_and_are_compiled_once(checkpointing):
    plain = model()
    fast = copy.deepcopy(plain)
    if checkpointing:
        set_checkpointing(plain)
        set_checkpointing(fast)
    graphs = Graphs()
    torch._dynamo.reset()
    assert compiled.compile_layers(fast, graphs) == 3

    # Lengths of speech and of packs of two shapes, which teach torch that lengths differ.
    for frames in ([61, 50], [200, 150, 90]):
        (nll, gradients), (wanted, others) = (
            passed(fast, batch(frames)),
            passed(plain, batch(frames)),
        )
        torch.testing.assert_close(nll, wanted, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(gradients, others, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    seen = graphs.count
    assert seen > 0
    for frames in ([70, 40], [199, 151, 88], [130, 120, 110]):
        passed(fast, batch(frames))
    assert graphs.count == seen


def test_padding_of_a_pack_changes_nothing():
    llm = model().llm
    states = torch.randn(9, 32)
    plain = causal.packed_forward(llm, states, causal.Packing([4, 5]))
    padded = causal.packed_forward(llm, states, causal.Packing([4, 5], multiple=8))
    torch.testing.assert_close(padded, plain, atol=1e-6, rtol=1e-6)
    packing = causal.Packing([4, 5], multiple=8)
    assert packing.lengths == [4, 5, 7] and packing.cu_seq_lens.tolist() == [0, 4, 9, 16]
    assert causal.Packing([4, 4], multiple=8).lengths == [4, 4]


def test_lengths_are_filled_up_for_compiled_layers():
    made = model()
    assert (made.llm.__dict__.get("multiple"), made.encoder.multiple) == (None, 1)
    assert compiled.compile_layers(made, Graphs()) == 3
    assert (made.llm.multiple, made.encoder.multiple) == (compiled.TOKENS, compiled.STATES)

    # What the layers see is as long; what comes out is as long as the speech.
    seen = []
    made.encoder.layers[0].forward = lambda hidden, mask: seen.append(hidden.shape[1]) or hidden
    made.encoder.layers[0]._compiled_call_impl = None
    states, lengths = made.encoder(torch.randn(2, 150, MELS), torch.tensor([150, 90]))
    assert seen == [128] and states.shape[1] == 75 and lengths.tolist() == [75, 45]


def test_the_key_compiles(monkeypatch):
    """``compile: true`` in the yaml; without it nothing is."""
    asked = []
    monkeypatch.setattr(dist, "compile_layers", asked.append)
    world = dist.World(0, 1, torch.device("cpu"))
    for compile in (False, True):
        made = model()
        dist.Engine(made, TrainConfig(compile=compile), world)
    assert asked == [made]

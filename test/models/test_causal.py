from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2ForCausalLM

from wenet_osum.models import loss
from wenet_osum.models.llm import causal


@pytest.fixture
def llm(folders):
    return causal.read(str(folders / "untied"))


def test_packed_equals_transformers_one_by_one(folders, llm):
    plain = Qwen2ForCausalLM.from_pretrained(folders / "untied", attn_implementation="eager").eval()
    parts = [torch.randn(n, 32) for n in (7, 1, 12)]
    packed = causal.packed_forward(llm, torch.cat(parts), causal.Packing([7, 1, 12]))
    singles = [plain.base_model(inputs_embeds=p[None], use_cache=False).last_hidden_state[0] for p in parts]
    torch.testing.assert_close(packed, torch.cat(singles), atol=1e-5, rtol=0)


def test_sliding_window_reaches_only_so_far(folders):
    changes = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "layer_types": ["sliding_attention"] * 2}
    from_folder = {"pretrained_model_name_or_path": folders / "untied", **changes}
    ours = Qwen2ForCausalLM.from_pretrained(**from_folder, attn_implementation="packed").eval()
    plain = Qwen2ForCausalLM.from_pretrained(**from_folder, attn_implementation="eager").eval()
    parts = [torch.randn(n, 32) for n in (9, 3)]
    packed = causal.packed_forward(ours, torch.cat(parts), causal.Packing([9, 3]))
    singles = [plain.base_model(inputs_embeds=p[None], use_cache=False).last_hidden_state[0] for p in parts]
    torch.testing.assert_close(packed, torch.cat(singles), atol=1e-5, rtol=0)


NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: varlen_attn runs on CUDA only"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def heads_of(queries: int, keys: int, channels: int, length: int) -> list[torch.Tensor]:
    """Query, key and value of packed utterances, in bfloat16."""
    sizes = [(1, heads, length, channels) for heads in (queries, keys, keys)]
    made = [torch.randn(*size, device=DEVICE).bfloat16() for size in sizes]
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("heads", [(4, 2, 16), (28, 4, 128), (14, 2, 64)], ids=["tiny", "7b", "0.5b"])
def test_varlen_kernel_equals_sdpa_per_segment(window, heads):
    """Forward and backward, at the heads of the shipped sizes."""
    lengths = [7, 1, 12, 162]
    packing = causal.Packing(lengths, DEVICE)
    inputs = heads_of(*heads, sum(lengths))
    scale = heads[-1] ** -0.5
    fast = causal._varlen(*inputs, packing, scale, window)
    wide = [tensor.detach().float().requires_grad_() for tensor in inputs]
    plain = causal._per_segment(*wide, packing, scale, 0.0, window)
    torch.testing.assert_close(fast.float(), plain, atol=2e-2, rtol=2e-2)

    weights = torch.randn_like(plain)
    (fast.float() * weights).sum().backward()
    (plain * weights).sum().backward()
    for half, whole in zip(inputs, wide, strict=True):
        error = (half.grad.float() - whole.grad).norm() / whole.grad.norm()
        assert error < 2e-2, f"gradients of shape {tuple(half.shape)} differ by {error:.3f}"


@pytest.mark.gpu
def test_packed_equals_alone_in_bfloat16(folders):
    """By whatever attention the device takes; utterances that are not kept apart are told by it."""
    llm = causal.read(str(folders / "untied"), torch.bfloat16).to(DEVICE)
    parts = [torch.randn(n, 32, device=DEVICE).bfloat16() for n in (7, 1, 12)]
    alone = []
    for part in parts:
        packing = causal.Packing([len(part)], DEVICE)
        alone.append(causal.packed_forward(llm, part, packing).float())
    alone = torch.cat(alone)

    def error(lengths: list[int]) -> float:
        packed = causal.packed_forward(llm, torch.cat(parts), causal.Packing(lengths, DEVICE))
        return float((packed.float() - alone).norm() / alone.norm())

    with torch.no_grad():
        assert error([7, 1, 12]) < 2e-2 and error([20]) > 0.1


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_decoding_heads_share_keys_without_copies(monkeypatch, length, dtype):
    """Six query heads of two key heads, over a cache of eight positions, with padding."""
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, length, 8, generator=draws).to(dtype)
    key, value = torch.randn(2, 3, 2, 8, 8, generator=draws).to(dtype)
    mask = torch.ones(3, 1, length, 8, dtype=torch.bool).tril(8 - length)
    mask[1, :, :, :4] = False
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    expected, _ = causal.sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    monkeypatch.setattr(causal, "sdpa_attention_forward", None)
    found, _ = causal.packed_attention(module, query, key, value, mask, scaling=0.3, dropout=0.0)
    assert found.shape == expected.shape and found.is_contiguous()
    torch.testing.assert_close(found, expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-6, rtol=0)


def test_losses_in_chunks_equal_losses_at_once(monkeypatch):
    head = torch.nn.Linear(8, 11)
    hidden, targets = torch.randn(10, 8, requires_grad=True), torch.randint(0, 11, (10,))
    whole, correct = loss.token_losses(head, hidden, targets)
    (gradient,) = torch.autograd.grad(whole.sum(), hidden)
    monkeypatch.setattr(loss, "CHUNK", 3)
    pieces, correct_pieces = loss.token_losses(head, hidden, targets)
    torch.testing.assert_close(pieces, whole)
    assert torch.equal(correct, correct_pieces)
    torch.testing.assert_close(torch.autograd.grad(pieces.sum(), hidden)[0], gradient)


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "obstacle"),
    [
        ("cuda", (7, 0), torch.float16, "compute capability is 7.0, it needs 8.0"),
        ("cuda", (7, 5), torch.bfloat16, "compute capability is 7.5, it needs 8.0"),
        ("cuda", (8, 0), torch.bfloat16, None),
        ("cuda", (9, 0), torch.float32, "the model computes in float32"),
        ("npu", (9, 0), torch.bfloat16, "there is none for npu"),
        ("xpu", (9, 0), torch.bfloat16, "there is none for xpu"),
    ],
)
def test_varlen_is_chosen_where_it_runs(monkeypatch, kind, capability, dtype, obstacle):
    """V100 is 7.0, T4 7.5, A100 8.0, H100 9.0."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    query = SimpleNamespace(dtype=dtype, device=SimpleNamespace(type=kind), shape=(1, 4, 9, 128))
    found = causal._obstacle(query, query, 0.0)
    assert (found is None) if obstacle is None else (obstacle in found)
    assert "dropout" in causal._obstacle(query, query, 0.1)


@pytest.mark.parametrize("channels", [(320, 320), (192, 128)])
def test_heads_that_varlen_does_not_take_are_run_one_by_one(monkeypatch, channels):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    query, value = (
        SimpleNamespace(
            dtype=torch.bfloat16, device=SimpleNamespace(type="cuda"), shape=(1, 4, 9, size)
        )
        for size in channels
    )
    assert f"heads have {channels[0]} channels" in causal._obstacle(query, value, 0.0)


def test_what_attention_ran_is_told_once(llm):
    part = torch.randn(9, 32)
    with causal.noting_attention() as ways:
        for lengths in ([4, 5], [9]):
            causal.packed_forward(llm, part, causal.Packing(lengths))
    (said,) = ways
    assert said.startswith("attention: one call per utterance") and "there is none for cpu" in said
    causal.packed_forward(llm, part, causal.Packing([9]))
    assert len(ways) == 1

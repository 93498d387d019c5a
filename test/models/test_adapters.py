"""Every file of models/adapter keeps to what the package asks of an adapter."""

from __future__ import annotations

import pytest
import torch

from wenet_osum import lookup

WIDTH, LLM_WIDTH = 16, 32
LENGTHS = torch.tensor([17, 16, 5, 1, 3])


@pytest.fixture(params=lookup.names("wenet_osum.models.adapter"))
def adapter(request):
    torch.manual_seed(0)
    made = lookup.load("wenet_osum.models.adapter", request.param).Adapter(WIDTH, LLM_WIDTH)
    if hasattr(made, "initialize"):
        made.initialize(0.02)
    return made.eval()


def test_alone_equals_batch_and_lengths_are_those_promised(adapter):
    states = torch.randn(5, 17, WIDTH)
    together, lengths = adapter(states, LENGTHS)
    assert together.shape[2] == LLM_WIDTH and lengths.device.type == "cpu"
    most = adapter.output_lengths(LENGTHS)
    assert (lengths <= most).all() and (adapter.stride is None or torch.equal(lengths, most))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, own = adapter(states[row : row + 1, :length], LENGTHS[row : row + 1])
        assert own.tolist() == [alone.shape[1]] == [lengths[row]]
        torch.testing.assert_close(together[row, : own[0]], alone[0], atol=1e-5, rtol=0)


def heard(adapter, states, lengths):
    """What the LLM hears, where CTC hears the same in pairs of states."""
    embeddings, lengths = adapter(states, lengths)
    if not hasattr(adapter, "shrinker"):
        return embeddings, lengths
    labels = (torch.arange(embeddings.shape[1]) // 2).expand(len(lengths), -1)
    whole = torch.zeros(len(lengths), dtype=torch.bool)
    return adapter.shrinker(embeddings, lengths, labels, 0, whole)


def test_every_weight_learns(adapter):
    embeddings, lengths = heard(adapter.train(), torch.randn(2, 17, WIDTH), torch.tensor([17, 9]))
    sum(row[:n].square().sum() for row, n in zip(embeddings, lengths, strict=True)).backward()
    still = [name for name, p in adapter.named_parameters() if p.grad is None]
    assert not still, f"DDP takes unused parameters for a fault: {still}"


def test_an_encoder_in_half_precision_may_stand_before_it(adapter):
    states = torch.randn(1, 9, WIDTH).bfloat16()
    whole, half = (adapter(s, torch.tensor([9]))[0] for s in (states.float(), states))
    assert torch.equal(whole, half)

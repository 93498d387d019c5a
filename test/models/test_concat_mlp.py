"""Kimi-Audio's adapter: what it computes, its rate and its scale."""

from __future__ import annotations

import pytest
import torch

from wenet_osum.models.adapter.concat_mlp import Adapter


def test_it_is_kimi_audios_chain_of_layers():
    torch.manual_seed(0)
    adapter = Adapter(8, 32).eval()
    chain = torch.nn.Sequential(
        torch.nn.Linear(32, 32), torch.nn.SiLU(), torch.nn.Linear(32, 32), torch.nn.LayerNorm(32)
    )
    chain[0].load_state_dict(adapter.input.state_dict())
    chain[2].load_state_dict(adapter.output.state_dict())
    states = torch.randn(2, 8, 8)
    found, lengths = adapter(states, torch.tensor([8, 8]))
    torch.testing.assert_close(found, chain(states.view(2, 2, 32)))
    assert lengths.tolist() == [2, 2] and adapter.stride == 4


def test_the_last_group_is_filled_with_zeros_whatever_lies_behind():
    torch.manual_seed(0)
    adapter = Adapter(8, 32).eval()
    states = torch.randn(2, 11, 8)
    states[1, 6:] = 1e3
    together, lengths = adapter(states, torch.tensor([11, 6]))
    filled = torch.zeros(1, 8, 8)
    filled[0, :6] = states[1, :6]
    alone, _ = adapter(filled, torch.tensor([8]))
    assert lengths.tolist() == [3, 2]
    torch.testing.assert_close(together[1, :2], alone[0])


def test_embeddings_begin_at_the_scale_of_text_and_a_step_keeps_them_there():
    torch.manual_seed(0)
    adapter = Adapter(64, 128).eval()
    adapter.initialize(0.01)
    states, lengths = torch.randn(4, 40, 64) * 7 + 3, torch.full((4,), 40)
    before, _ = adapter(states, lengths)
    assert abs(float(before.detach().std()) - 0.01) < 1e-4
    before.square().sum().backward()
    torch.optim.AdamW(adapter.parameters(), lr=1e-3).step()
    after, _ = adapter(states, lengths)
    assert float((after - before).detach().std()) < 0.5 * 0.01


def test_the_gain_is_no_weight_and_is_saved():
    adapter = Adapter(8, 32)
    adapter.initialize(0.03)
    assert "gain" not in dict(adapter.named_parameters())
    other = Adapter(8, 32)
    other.load_state_dict(adapter.state_dict())
    assert float(other.gain) == pytest.approx(0.03)


@pytest.mark.parametrize("factor", [0, 1.5])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor {factor} must be a whole number of 1 or more"):
        Adapter(8, 32, factor=factor)

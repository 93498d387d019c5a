from __future__ import annotations

import pytest
import torch

from wenet_osum.models.adapter.linear import Adapter


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_groups_are_stacked_and_the_last_one_is_filled_with_zeros(factor, layers):
    torch.manual_seed(0)
    adapter = Adapter(8, 32, factor=factor, layers=layers, heads=2, ffn=16).eval()
    states, lengths = torch.randn(2, 11, 8), torch.tensor([11, 6])
    together, out = adapter(states, lengths)
    assert out.tolist() == [-(-11 // factor), -(-6 // factor)] and adapter.stride == factor
    states[1, 6:] = 1e3
    again, _ = adapter(states, lengths)
    assert torch.equal(together[1, : out[1]], again[1, : out[1]]), "padding got into the last group"
    filled = torch.zeros(1, int(out[0]) * factor, 8)
    filled[0, :11] = states[0]
    alone, _ = adapter(filled, torch.tensor([filled.shape[1]]))
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=0)


def test_it_is_a_norm_two_linear_maps_and_a_gelu():
    torch.manual_seed(0)
    adapter = Adapter(8, 32, factor=2).eval()
    states = torch.randn(1, 4, 8)
    found, _ = adapter(states, torch.tensor([4]))
    pair = torch.cat([states[0, 2], states[0, 3]])
    inner = torch.nn.functional.gelu(adapter.input(torch.nn.functional.layer_norm(pair, (16,))))
    torch.testing.assert_close(found[0, 1], adapter.output(inner))


@pytest.mark.parametrize("factor", [0, -1, 1.5])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor {factor} must be a whole number of 1 or more"):
        Adapter(8, 32, factor=factor)


def test_layers_need_heads_that_divide_their_width():
    with pytest.raises(ValueError, match="width 30 must be even and a multiple of heads 4"):
        Adapter(8, 32, width=30, layers=1)


@pytest.mark.parametrize("layers", [0, 1])
def test_embeddings_begin_at_the_scale_of_text(layers):
    torch.manual_seed(0)
    adapter = Adapter(24, 40, layers=layers, ffn=48).eval()
    adapter.initialize(0.05)
    with torch.no_grad():
        embeddings, _ = adapter(torch.randn(8, 64, 24) * 7 + 3, torch.full((8,), 64))
    assert 0.04 < float(embeddings.std()) < 0.06


def test_a_step_of_adam_moves_embeddings_by_a_part_of_their_scale():
    """A step moves each weight by the learning rate, however small the LLM's embeddings are."""
    torch.manual_seed(0)
    adapter = Adapter(64, 128).eval()
    adapter.initialize(0.01)
    states, lengths = torch.randn(4, 40, 64), torch.full((4,), 40)
    before, _ = adapter(states, lengths)
    before.square().sum().backward()
    torch.optim.AdamW(adapter.parameters(), lr=1e-3).step()
    after, _ = adapter(states, lengths)
    assert float((after - before).std()) < 0.5 * 0.01


@pytest.mark.parametrize(
    ("conf", "heads"),
    [
        ({}, {}),
        ({"layers": 2}, {"heads": 14}),
        ({"layers": 2, "width": 512}, {"heads": 4}),
        ({"layers": 2, "heads": 7}, {}),
    ],
)
def test_heads_of_a_new_adapter_fit_the_kernel(conf, heads):
    """Flash attention runs heads of up to 256 channels."""
    assert Adapter.complete_conf(1280, 3584, conf) == conf | heads

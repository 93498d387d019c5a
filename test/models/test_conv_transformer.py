from __future__ import annotations

import math

import pytest
import torch

from wenet_osum.models.adapter.conv_transformer import Adapter, positions


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return Adapter(24, 40, width=32, layers=2, heads=4, ffn=48).eval()


def test_alone_equals_batch_and_no_state_is_lost(adapter):
    lengths = torch.tensor([17, 16, 5, 1, 3])
    states = torch.randn(5, 17, 24)
    together, out = adapter(states, lengths)
    assert out.tolist() == [5, 4, 2, 1, 1] and together.shape == (5, 5, 40)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_length = adapter(states[row : row + 1, :length], lengths[row : row + 1])
        assert alone_length.tolist() == [alone.shape[1]] == [out[row]]
        torch.testing.assert_close(together[row, : out[row]], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [5, 9, 13, 17])
def test_last_state_of_an_odd_length_counts(adapter, length):
    states = torch.randn(1, length, 24)
    changed = states.clone()
    changed[:, -1] += 1.0
    before, after = (adapter(s, torch.tensor([length]))[0] for s in (states, changed))
    assert (before - after).abs().max() > 1e-4


def test_positions_are_interleaved_sinusoids():
    table = positions(700, 6, torch.device("cpu"))
    slow = 3 / 10000 ** (1 / 3)
    assert table.shape == (700, 6)
    torch.testing.assert_close(table[3, :4], torch.tensor([math.sin(3), math.cos(3), math.sin(slow), math.cos(slow)]))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 30 .* heads 4"):
        Adapter(24, 40, width=30)


def test_embeddings_begin_at_the_scale_of_text_and_differ_along_the_speech():
    torch.manual_seed(0)
    adapter = Adapter(24, 40, width=32, layers=2, heads=4, ffn=48).eval()
    adapter.initialize(0.05)
    with torch.no_grad():
        embeddings, _ = adapter(torch.randn(8, 64, 24), torch.full((8,), 64))
    assert 0.04 < float(embeddings.std()) < 0.06
    varying = embeddings - embeddings.mean(1, keepdim=True)
    assert float(varying.std() / embeddings.std()) > 0.6, "a constant offset drowns what was said"


@pytest.mark.parametrize(
    ("width", "conf", "heads"),
    [(768, {}, 4), (1024, {}, 4), (1280, {}, 5), (1280, {"heads": 2}, 2)],
)
def test_heads_of_a_new_adapter_fit_the_kernel(width, conf, heads):
    chosen = Adapter.complete_conf(width, 40, conf)
    assert chosen == conf | {"heads": heads, "gain": True}


def test_an_encoder_in_half_precision_may_stand_before_it(adapter):
    states, lengths = torch.randn(1, 9, 24), torch.tensor([9])
    whole, half = (adapter(s, lengths)[0] for s in (states.bfloat16().float(), states.bfloat16()))
    assert torch.equal(whole, half)


def step_of_adam(std, **conf):
    """How far one step moves the embeddings of a new adapter, in parts of ``std``."""
    torch.manual_seed(0)
    adapter = Adapter(64, 128, width=64, layers=1, ffn=48, **conf).eval()
    adapter.initialize(std)
    states, lengths = torch.randn(4, 40, 64), torch.full((4,), 40)
    before, _ = adapter(states, lengths)
    before.square().sum().backward()
    torch.optim.AdamW(adapter.parameters(), lr=1e-3).step()
    after, _ = adapter(states, lengths)
    return float((after - before).std()) / std


def test_a_step_of_adam_moves_embeddings_by_a_part_of_their_scale():
    """A step moves each weight by the learning rate; the deviation of published LLMs is 0.017."""
    assert step_of_adam(0.01) > 2, "without a gain it throws them beyond all tokens"
    assert step_of_adam(0.01, gain=True) < 0.5


@pytest.mark.parametrize("std", [0.017, 1.0])
def test_a_gain_begins_as_the_same_map(std):
    made = []
    for gain in (False, True):
        torch.manual_seed(0)
        adapter = Adapter(24, 40, width=32, layers=1, heads=4, ffn=48, gain=gain).eval()
        adapter.initialize(std)
        torch.manual_seed(1)
        made.append(adapter(torch.randn(1, 9, 24), torch.tensor([9]))[0])
    torch.testing.assert_close(*made)


@pytest.mark.parametrize("ours", [False, True])
def test_weights_of_an_adapter_with_and_without_a_gain_fit_each_other(ours):
    torch.manual_seed(0)
    mine, other = (Adapter(24, 40, width=32, layers=1, ffn=48, gain=g).eval() for g in (ours, not ours))
    other.initialize(0.05)
    mine.load_state_dict(mine.fit_state(other.state_dict()))
    states, lengths = torch.randn(1, 9, 24), torch.tensor([9])
    torch.testing.assert_close(mine(states, lengths)[0], other(states, lengths)[0])

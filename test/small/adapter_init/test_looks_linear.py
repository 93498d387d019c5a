"""A wide adapter begins as a map that lets everything through."""

from __future__ import annotations

import pytest
import torch

from wenet_osum.models.adapter.conv_transformer import Adapter
from wenet_osum.models.assemble import init_adapter


def test_with_room_it_begins_as_a_linear_map_that_hides_no_channel():
    torch.manual_seed(0)
    adapter = Adapter(16, 40, width=32, layers=0, heads=4, ffn=48).eval()
    init_adapter(adapter, 0.05, "looks_linear")
    seen = []
    adapter.input_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    a, b = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        for states in (a, b, a + b):
            adapter(states, torch.tensor([16]))
        torch.testing.assert_close(seen[2], seen[0] + seen[1], atol=1e-5, rtol=0)
        for channel in range(16):
            constant = torch.zeros(1, 16, 16)
            constant[:, :, channel] = 1.0
            adapter(constant, torch.tensor([16]))
        responses = torch.stack([s[0, -1] for s in seen[3:]])
    assert torch.linalg.matrix_rank(responses) == 16


def test_embeddings_begin_at_the_scale_of_text():
    torch.manual_seed(0)
    adapter = Adapter(16, 40, width=32, layers=1, heads=4, ffn=48).eval()
    init_adapter(adapter, 0.05, "looks_linear")
    with torch.no_grad():
        embeddings, _ = adapter(torch.randn(8, 64, 16), torch.full((8,), 64))
    assert 0.04 < float(embeddings.std()) < 0.06


def test_a_narrow_adapter_is_refused():
    with pytest.raises(ValueError, match="at least twice the encoder's width"):
        init_adapter(Adapter(16, 40, width=24, layers=0, heads=4, ffn=48), 0.05, "looks_linear")

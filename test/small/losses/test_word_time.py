"""Every frame tells when its word starts and ends."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wenet_osum.config import ModelConfig
from wenet_osum.models.objective import make_objective
from wenet_osum.small.losses import word_time
from wenet_osum.small.sinusoids import span_waves


def frames_with(code, count=12):
    torch.manual_seed(1)
    return functional.normalize(functional.normalize(torch.randn(1, count, 64), dim=-1) + code, dim=-1)


def own(rows, count):
    """Spans of frames that belong to no word."""
    return word_time.word_spans(torch.zeros(0, 2), torch.zeros(rows, dtype=torch.int64), count, 0.08)


def test_a_frame_that_tells_its_span_is_right():
    lengths, spans = torch.tensor([12]), own(1, 12)
    spans[0, 4:8] = torch.tensor([3.5, 8.2])
    codes = functional.normalize(span_waves(spans, 64), dim=-1)
    starts, ends = codes.clone(), codes.clone()
    starts[..., 32:], ends[..., :32] = 0.0, 0.0
    none, right, start, end, turned = (
        float(word_time.time_losses(frames_with(2 * code), lengths, spans)) for code in (0.0, codes, starts, ends, codes.flip(1))
    )
    assert right < 2.4 < min(start, end) and max(start, end) < none < turned


def test_spans_are_those_of_the_words_spoken_then():
    times = torch.tensor([[0.08, 0.30], [-torch.inf, torch.inf], [0.0, 0.12]])
    found = word_time.word_spans(times, torch.tensor([2, 1]), 5, 0.08)
    word = [pytest.approx(1.0), pytest.approx(3.75)]
    assert found[0].tolist() == [[0, 1], word, word, word, [4, 5]], "the middle of frame 3 is at 0.28 s"
    assert found[1].tolist() == [[0, pytest.approx(1.5)], *[[i, i + 1] for i in range(1, 5)]]


@pytest.mark.parametrize("length", [1, 7, 40])
def test_padding_changes_nothing(length):
    frames = functional.normalize(torch.randn(2, 60, 64), dim=-1)
    lengths, spans = torch.tensor([60, length]), own(2, 60)
    alone = word_time.time_losses(frames[1:, :length], lengths[1:], spans[1:, :length])
    torch.testing.assert_close(word_time.time_losses(frames, lengths, spans)[1:], alone)


def test_gradients_stay_finite_under_much_padding():
    frames = torch.randn(2, 60, 64, requires_grad=True)
    word_time.time_losses(functional.normalize(frames, dim=-1), torch.tensor([60, 2]), own(2, 60)).sum().backward()
    assert torch.isfinite(frames.grad).all() and not frames.grad[1, 2:].any()


def test_the_model_takes_it_with_its_weight(osum):
    model, batch = osum
    plain = model(batch).loss
    model.set_objective(make_objective(ModelConfig(losses=[{"name": "word_time", "weight": 0.5}]), None))
    with pytest.raises(ValueError, match="word_time needs 'word_times' in the batch"):
        model(batch)
    times, counts = torch.tensor([[0.0, 0.2], [0.2, 0.4], [-torch.inf, torch.inf]]), torch.tensor([2, 0, 1])
    batch.targets = {"word_times": times, "word_times_lengths": counts}
    speech, lengths = model.padded_speech(batch.features, batch.feature_lengths)
    spans = word_time.word_spans(times, counts, speech.shape[1], 0.08)
    found = word_time.time_losses(functional.normalize(speech, dim=-1), lengths, spans)
    torch.testing.assert_close(model(batch).loss, plain + 0.5 * found.sum())

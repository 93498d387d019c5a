"""The tones of written speech on the adapter's output: labels in the mean frame, places in each."""


import pytest
import torch
from torch.nn import functional

from wenet_osum.models import tones
from wenet_osum.models.sinusoids import stretch_waves

WORDS = [[[1], [2, 3]], [[4], [5], [6]]]  # token ids of the labels of two fields


@pytest.fixture
def table():
    torch.manual_seed(0)
    return torch.randn(9, 64)


def frames_with(tone, count=12):
    torch.manual_seed(1)
    return functional.normalize(functional.normalize(torch.randn(1, count, 64), dim=-1) + tone, dim=-1)


def test_a_label_in_all_frames_is_right_and_another_wrong(table):
    label = functional.normalize((table[2] + table[3]) / 2, dim=-1)
    frames = frames_with(0.5 * label)
    right, wrong, unknown = (
        float(tones.label_losses(frames, torch.tensor([12]), torch.tensor([[place, -1]]), WORDS, table)) for place in (1, 0, -1)
    )
    assert right < 0.1 < 2.0 < wrong and unknown == 0.0


def test_losses_of_fields_add_up(table):
    frames, lengths = frames_with(0.0), torch.tensor([12])
    one = [float(tones.label_losses(frames, lengths, torch.tensor([row]), WORDS, table)) for row in ([0, 2], [0, -1], [-1, 2])]
    assert one[0] == pytest.approx(one[1] + one[2]) and one[1] > 0 and one[2] > 0


def own(count):
    return tones.stretches(None, None, 1, count, 0.08)


def test_a_frame_that_tells_its_stretch_is_right():
    lengths, spans = torch.tensor([12]), own(12)
    spans[0, 4:8] = torch.tensor([3.5, 8.2])
    codes = functional.normalize(stretch_waves(spans, 64), dim=-1)
    starts, ends = codes.clone(), codes.clone()
    starts[..., 32:], ends[..., :32] = 0.0, 0.0
    none, right, start, end, turned = (
        float(tones.place_losses(frames_with(2 * tone), lengths, spans)) for tone in (0.0, codes, starts, ends, codes.flip(1))
    )
    assert right < 2.4 < min(start, end) and max(start, end) < none < turned


def test_stretches_are_those_of_the_words_spoken_then():
    times = torch.tensor([[0.08, 0.30], [-torch.inf, torch.inf], [0.0, 0.12]])
    found = tones.stretches(times, torch.tensor([2, 1]), 2, 5, 0.08)
    word = [pytest.approx(1.0), pytest.approx(3.75)]
    assert found[0].tolist() == [[0, 1], word, word, word, [4, 5]], "the middle of frame 3 is at 0.28 s"
    assert found[1].tolist() == [[0, pytest.approx(1.5)], *[[i, i + 1] for i in range(1, 5)]]


@pytest.mark.parametrize("length", [1, 7, 40])
def test_padding_changes_nothing(table, length):
    frames = functional.normalize(torch.randn(2, 60, 64), dim=-1)
    labels, lengths, spans = torch.tensor([[0, 2], [1, 0]]), torch.tensor([60, length]), own(60).repeat(2, 1, 1)
    alone = frames[1:, :length], lengths[1:]
    torch.testing.assert_close(tones.place_losses(frames, lengths, spans)[1:], tones.place_losses(*alone, spans[1:, :length]))
    together = tones.label_losses(frames, lengths, labels, WORDS, table)
    torch.testing.assert_close(together[1:], tones.label_losses(*alone, labels[1:], WORDS, table))


def test_gradients_stay_finite_under_much_padding():
    frames = torch.randn(2, 60, 64, requires_grad=True)
    tones.place_losses(functional.normalize(frames, dim=-1), torch.tensor([60, 2]), own(60).repeat(2, 1, 1)).sum().backward()
    assert torch.isfinite(frames.grad).all() and not frames.grad[1, 2:].any()


def test_the_models_loss_takes_them_with_their_weight(model, batch):
    plain = model(**batch).loss
    model.tone_weight, model.label_words = 0.5, WORDS
    with pytest.raises(ValueError, match="needs labels in the batch"):
        model(**batch)
    labels = torch.tensor([[0, 2], [1, -1], [-1, 0]])
    toned = model(**batch, labels=labels)
    speech, lengths = model.padded_speech(batch["features"], batch["feature_lengths"])
    frames = functional.normalize(speech, dim=-1)
    table = model.get_input_embeddings().weight
    found = tones.label_losses(frames, lengths, labels, WORDS, table) + tones.place_losses(frames, lengths, own(speech.shape[1]).repeat(3, 1, 1))
    assert torch.allclose(toned.loss, plain + 0.5 * found.sum(), rtol=1e-5)
    silent = {"answer_weights": torch.zeros_like(batch["answer_weights"])}
    assert float(model(**(batch | silent), labels=labels).loss) == 0.0

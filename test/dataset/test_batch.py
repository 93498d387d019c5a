"""Batches: padding by length and never by value; a filler weighs nothing."""

import pytest
import torch

from wenet_osum.dataset.batch import collate
from wenet_osum.records import Sample


def sample(key, frames, prompt, answer, transcript=()):
    features = torch.full((frames, 4), float(frames))
    targets = {"transcript_ids": torch.tensor(transcript, dtype=torch.int64), "labels": torch.tensor([[1.0, 2.0]])}
    count = len(answer)
    marks = [count > 1] * count, [place == 0 for place in range(count)]
    return Sample(key, "<TRANSCRIBE>", features, prompt, answer, [0.5] * count, *marks, targets, audio_s=frames / 100)


def test_texts_lie_end_to_end_and_features_are_padded():
    batch = collate([sample("a", 3, [1, 2], [0, 7, 0], [9]), sample("b", 5, [3], [0])], {"broken": 2})
    assert batch.features.shape == (2, 5, 4) and batch.feature_lengths.tolist() == [3, 5]
    assert batch.features[0, 3:].abs().sum() == 0 and (batch.features[0, :3] == 3).all()
    assert batch.prompt_ids.tolist() == [1, 2, 3] and batch.prompt_lengths.tolist() == [2, 1]
    assert batch.answer_ids.tolist() == [0, 7, 0, 0] and batch.answer_lengths.tolist() == [3, 1]
    assert batch.answer_weights.tolist() == [0.5] * 4 and batch.answer_labels.tolist() == [True, True, True, False]
    assert batch.answer_transcripts.tolist() == [True, False, False, True]
    assert batch.targets["transcript_ids"].tolist() == [9] and batch.targets["transcript_ids_lengths"].tolist() == [1, 0]
    assert batch.targets["labels"].tolist() == [[1.0, 2.0]] * 2 and batch.targets["labels_lengths"].tolist() == [1, 1]
    assert batch.keys == ["a", "b"] and batch.audio_s == [0.03, 0.05] and batch.dropped == {"broken": 2} and not batch.filler
    assert batch.features.dtype == batch.answer_weights.dtype == torch.float32
    assert {t.dtype for t in (batch.prompt_ids, batch.prompt_lengths, batch.answer_ids, batch.answer_lengths, batch.feature_lengths)} == {torch.int64}


def test_no_answers_when_decoding():
    batch = collate([sample("a", 3, [1, 2], [])])
    assert batch.answer_ids.shape == (0,) and batch.answer_lengths.tolist() == [0] and batch.answer_ids.dtype == torch.int64


def test_a_broken_batch_becomes_a_filler_without_weight():
    batch = collate([], {"audio: unreadable": 3}, filler=sample("f", 4, [1], [5, 6], [5]))
    assert batch.filler and batch.answer_weights.tolist() == [0.0, 0.0] and batch.answer_ids.tolist() == [5, 6]
    assert batch.targets["transcript_ids_lengths"].tolist() == [1] and batch.dropped == {"audio: unreadable": 3}
    assert not collate([sample("a", 3, [1], [2])], filler=sample("f", 4, [1], [5])).filler
    with pytest.raises(AssertionError, match="needs a filler"):
        collate([])


def test_targets_move_with_the_batch():
    batch = collate([sample("a", 3, [1], [0], [9])]).to("meta")
    assert batch.targets["transcript_ids"].is_meta and batch.features.is_meta

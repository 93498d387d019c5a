from __future__ import annotations

import pytest
import torch
from transformers import AutoFeatureExtractor, WhisperForConditionalGeneration

from wenet_osum.config import OptimConfig, PartConfig
from wenet_osum.models import parts
from wenet_osum.models.whisper import WhisperPhase


@pytest.fixture
def batch(batch):
    return batch | {"transcript_ids": torch.tensor([4, 4, 5, 6, 7, 8, 9]), "transcript_lengths": torch.tensor([3, 2, 2])}


def phase(folders, ctc_weight=0.0):
    torch.manual_seed(3)
    return WhisperPhase.from_pretrained(folders / "whisper", ctc_weight)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_padded_equals_single(folders, batch, take, ctc_weight):
    model = phase(folders, ctc_weight)
    together = model(**batch)
    singles = [model(**take(batch, row)) for row in range(3)]
    torch.testing.assert_close(together.nll, torch.cat([s.nll for s in singles]), atol=2e-5, rtol=0)
    torch.testing.assert_close(together.loss, sum(s.loss for s in singles))
    torch.testing.assert_close(together.weight, batch["answer_weights"].sum())
    assert together.nll.shape == together.correct.shape == (12,)


def test_equals_transformers_on_thirty_seconds(folders, batch):
    features, prompt, answer = torch.randn(1, 3000, 8), batch["prompt_ids"][:3], batch["answer_ids"][:5]
    ours = phase(folders)(features, torch.tensor([3000]), prompt, torch.tensor([3]), answer, torch.tensor([5]))
    theirs = WhisperForConditionalGeneration.from_pretrained(folders / "whisper").eval()
    ids = torch.cat([torch.tensor([2]), prompt, answer[:-1]])[None]
    logits = theirs(input_features=features.transpose(1, 2), decoder_input_ids=ids).logits[0, 3:]
    torch.testing.assert_close(ours.nll, torch.nn.functional.cross_entropy(logits, answer, reduction="none"), atol=2e-5, rtol=0)


def test_fillers_weigh_nothing(folders, batch):
    output = phase(folders, 0.3)(**batch | {"answer_weights": torch.zeros(12)})
    assert output.loss == 0 and output.weight == 0


def test_ctc_alone_runs_without_the_decoder(folders, batch):
    model = phase(folders, 1.0)
    with pytest.raises(ValueError, match="leave decoder"):
        model(**batch)
    parts.apply_train_parts(model, {"encoder.*": PartConfig(), "ctc_head.*": PartConfig()}, OptimConfig())
    output = model.train()(**batch | {"answer_weights": None})
    torch.testing.assert_close(output.nll.sum(), output.loss.detach())
    output.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_transcript_too_long_for_its_frames_is_counted(folders, batch):
    model = phase(folders, 0.5)
    output = model(**batch | {"transcript_ids": torch.full((44,), 5), "transcript_lengths": torch.tensor([40, 2, 2])})
    output.loss.backward()
    assert output.impossible == 1 and output.loss.isfinite() and model.ctc_head.weight.grad.isfinite().all()


def test_round_trip_is_an_ordinary_whisper_folder(folders, batch, tmp_path):
    model = phase(folders, 0.3)
    model.save_pretrained(tmp_path)
    loaded = WhisperPhase.from_pretrained(tmp_path)
    assert loaded.ctc_weight == 0.3 and torch.equal(loaded(**batch).loss, model(**batch).loss)
    plain, info = WhisperForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert plain.config.architectures == ["WhisperForConditionalGeneration"] and plain.proj_out.weight is plain.model.decoder.embed_tokens.weight
    inputs = (batch["features"], batch["feature_lengths"])
    assert loaded.ctc_greedy(*inputs) == model.ctc_greedy(*inputs) and len(model.ctc_greedy(*inputs)) == 3


def test_texts_beyond_the_positions_are_refused(folders, batch):
    with pytest.raises(ValueError, match="450 tokens.*448"):
        phase(folders)(**batch | {"answer_ids": torch.full((449,), 5), "answer_lengths": torch.tensor([447, 1, 1]), "answer_weights": None})


def test_ctc_without_transcripts_is_refused(folders, batch):
    with pytest.raises(ValueError, match="transcript_ids"):
        phase(folders, 0.3)(**batch | {"transcript_ids": None})


def test_a_folder_says_how_features_are_made(folders, tmp_path):
    WhisperPhase.from_pretrained(folders / "whisper").save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).feature_size == 8

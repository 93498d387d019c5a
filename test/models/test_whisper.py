from __future__ import annotations

import pytest
import torch
from transformers import AutoFeatureExtractor, WhisperForConditionalGeneration

from wenet_osum import lookup
from wenet_osum.config import ModelConfig, OptimConfig, PartConfig
from wenet_osum.models import trainable
from wenet_osum.models.objective import make_objective
from wenet_osum.models.whisper import WhisperPhase

TRANSCRIPTS = {"transcript_ids": (torch.tensor([4, 4, 5, 6, 7, 8, 9]), [3, 2, 2])}


def objective(ctc):
    """A share of CTC beside the answers; no template is needed, for the tests bring the targets themselves."""
    losses = [{"name": "ctc", "weight": ctc}] if ctc else []
    return make_objective(ModelConfig(kind="whisper", ce_weight=1 - ctc, losses=losses), None)


def phase(folders, ctc=0.0):
    torch.manual_seed(3)
    model = WhisperPhase.from_pretrained(folders / "whisper")
    model.set_objective(objective(ctc))
    return model


@pytest.fixture
def spoken(batch, as_batch):
    """spoken(**changes) → the batch with its transcripts."""
    return lambda **changes: as_batch(batch | changes, **TRANSCRIPTS)


def of_row(row):
    """The transcript of one utterance alone."""
    ids, lengths = TRANSCRIPTS["transcript_ids"]
    return {"transcript_ids": (ids.split(lengths)[row], [lengths[row]])}


@pytest.mark.parametrize("ctc", [0.0, 0.3])
def test_padded_equals_single(folders, batch, take, as_batch, spoken, ctc):
    model = phase(folders, ctc)
    together = model(spoken())
    singles = [model(as_batch(take(batch, row), **of_row(row))) for row in range(3)]
    torch.testing.assert_close(together.nll, torch.cat([s.nll for s in singles]), atol=2e-5, rtol=0)
    torch.testing.assert_close(together.loss, sum(s.loss for s in singles))
    torch.testing.assert_close(together.weight, batch["answer_weights"].sum())
    assert together.nll.shape == together.correct.shape == (12,)


def test_equals_transformers_on_thirty_seconds(folders, batch, as_batch):
    features, prompt, answer = torch.randn(1, 3000, 8), batch["prompt_ids"][:3], batch["answer_ids"][:5]
    fields = {"features": features, "feature_lengths": torch.tensor([3000]), "prompt_ids": prompt, "prompt_lengths": torch.tensor([3])}
    ours = phase(folders)(as_batch(fields | {"answer_ids": answer, "answer_lengths": torch.tensor([5])}))
    theirs = WhisperForConditionalGeneration.from_pretrained(folders / "whisper").eval()
    ids = torch.cat([torch.tensor([2]), prompt, answer[:-1]])[None]
    logits = theirs(input_features=features.transpose(1, 2), decoder_input_ids=ids).logits[0, 3:]
    torch.testing.assert_close(ours.nll, torch.nn.functional.cross_entropy(logits, answer, reduction="none"), atol=2e-5, rtol=0)


def test_fillers_weigh_nothing(folders, spoken):
    output = phase(folders, 0.3)(spoken(answer_weights=torch.zeros(12)))
    assert output.loss == 0 and output.weight == 0


def test_ctc_alone_runs_without_the_decoder(folders, spoken):
    model = phase(folders, 1.0)
    with pytest.raises(ValueError, match="leave decoder"):
        model(spoken())
    trainable.apply_train_parts(model, {"encoder.*": PartConfig(), "ctc_head.*": PartConfig()}, OptimConfig())
    output = model.train()(spoken(answer_weights=None))
    torch.testing.assert_close(output.nll.sum(), output.loss.detach())
    output.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_transcript_too_long_for_its_frames_is_counted(folders, batch, as_batch):
    model = phase(folders, 0.5)
    output = model(as_batch(batch, transcript_ids=(torch.full((44,), 5), [40, 2, 2])))
    output.loss.backward()
    assert output.left_out["ctc: transcript longer than its frames"] == 1
    assert output.loss.isfinite() and model.ctc_head.weight.grad.isfinite().all()


def test_round_trip_is_an_ordinary_whisper_folder(folders, batch, spoken, tmp_path):
    model = phase(folders, 0.3)
    model.save_pretrained(tmp_path)
    loaded = WhisperPhase.from_pretrained(tmp_path)
    assert loaded.config.losses == [{"name": "ctc", "weight": 0.3}]
    loaded.set_objective(objective(0.3))
    assert torch.equal(loaded(spoken()).loss, model(spoken()).loss)
    plain, info = WhisperForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert plain.config.architectures == ["WhisperForConditionalGeneration"] and plain.proj_out.weight is plain.model.decoder.embed_tokens.weight
    heard = [m.token_logits(m.encoder(batch["features"], batch["feature_lengths"])[0]) for m in (model, loaded)]
    assert torch.equal(*heard) and heard[0].shape == (3, 31, model.blank + 1)


def test_texts_beyond_the_positions_are_refused(folders, spoken):
    with pytest.raises(ValueError, match="450 tokens.*448"):
        phase(folders)(spoken(answer_ids=torch.full((449,), 5), answer_lengths=torch.tensor([447, 1, 1]), answer_weights=None))


def test_ctc_without_transcripts_is_refused(folders, batch, as_batch):
    with pytest.raises(ValueError, match="transcript_ids"):
        phase(folders, 0.3)(as_batch(batch))


def test_a_head_without_a_loss_is_dropped(folders, tmp_path):
    """It would have no gradient, which DDP takes for a fault; the next phase may go on without CTC."""
    phase(folders, 0.3).save_pretrained(tmp_path)
    loaded = WhisperPhase.from_pretrained(tmp_path)
    assert loaded.ctc_head is not None
    loaded.set_objective(objective(0.0))
    assert loaded.ctc_head is None and loaded.config.losses == [{"name": "ctc", "weight": 0.3}]
    with pytest.raises(ValueError, match="no CTC head"):
        loaded.token_logits(torch.zeros(1, 1, 32))


def test_a_loss_of_the_other_kind_is_refused():
    lookup.add_plugins(["wenet_osum.small"])
    conf = ModelConfig(kind="whisper", losses=[{"name": "word_time", "weight": 1.0}])
    with pytest.raises(ValueError, match="word_time: is for kind osum, and model.kind is whisper"):
        make_objective(conf, None)


def test_a_folder_says_how_features_are_made(folders, tmp_path):
    WhisperPhase.from_pretrained(folders / "whisper").save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).feature_size == 8

"""Phase 1 with some of the tokens as classes of its CTC head."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from wenet_osum.config import ModelConfig
from wenet_osum.decode.ctc_draft import best_path
from wenet_osum.models.objective import Objective, make_objective
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template

TEXTS = ["red cat", "a cat sat", "red hat"]
ALL = {"name": "ctc", "weight": 0.3}


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(TEXTS * 9, 400))


@pytest.fixture(scope="module")
def ids(template, tmp_path_factory):
    """The token ids of classes that can write ``TEXTS``."""
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    pieces = ctc_classes.learn(template.tokenizer, TEXTS, 14)
    path.write_text("\n".join(pieces), encoding="utf-8")
    assert ctc_classes.count(path) == len(pieces) > 9
    return ctc_classes.read(template.tokenizer, path)


def objective(template, classes) -> Objective:
    entry = ALL | ({"classes": list(classes)} if classes else {})
    return make_objective(ModelConfig(kind="whisper", ce_weight=0.7, losses=[entry]), template)


def phase(folders, template, classes) -> WhisperPhase:
    torch.manual_seed(3)
    model = WhisperPhase.from_pretrained(folders / "whisper")
    model.set_objective(objective(template, classes))
    return model


def spoken(template, ids, batch, as_batch):
    """A batch whose transcripts are written with the classes."""
    encoder = ctc_classes.ClassEncoder(template.tokenizer, ids)
    rows = [template.transcript(Utterance("", "", text), encoder.tokenizer)[0] for text in TEXTS]
    classes = [encoder.classes(row) for row in rows]
    ends = torch.tensor([number for row in classes for number in row])
    return as_batch(batch, transcript_classes=(ends, [len(row) for row in classes])), classes


def test_the_loss_is_that_of_the_classes(folders, template, ids, batch, as_batch):
    model = phase(folders, template, ids)
    given, classes = spoken(template, ids, batch, as_batch)
    assert model.ctc_head.out_features == len(ids) + 1 and model.blank == len(ids)
    states, lengths = model.encoder(batch["features"], batch["feature_lengths"])
    logs = functional.linear(states, model.ctc_head.weight, model.ctc_head.bias).log_softmax(-1)
    expected = 0.0
    for log, length, row in zip(logs, lengths.tolist(), classes, strict=True):
        alone = log[:length, None], torch.tensor([row]), [length], [len(row)]
        expected += functional.ctc_loss(*alone, blank=len(ids), reduction="sum")
    alone = phase(folders, template, ids)
    alone.objective.ce_weight = 0.0
    alone.decoder.requires_grad_(False)
    alone.proj_out.requires_grad_(False)
    torch.testing.assert_close(alone(given).loss, 0.3 * expected)


def test_a_folder_remembers_its_classes(folders, template, ids, batch, as_batch, tmp_path):
    model = phase(folders, template, ids)
    model.save_pretrained(tmp_path)
    loaded = WhisperPhase.from_pretrained(tmp_path)
    assert loaded.ctc_classes == tuple(ids) and loaded.ctc_head.out_features == len(ids) + 1
    loaded.set_objective(objective(template, ids))
    given, _ = spoken(template, ids, batch, as_batch)
    assert torch.equal(loaded(given).loss, model(given).loss)
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert plain.config.vocab_size == loaded.config.vocab_size


@pytest.mark.parametrize("other", [False, True], ids=["all tokens", "other classes"])
def test_a_head_of_other_classes_is_refused(folders, template, ids, tmp_path, other):
    phase(folders, template, ids).save_pretrained(tmp_path)
    loaded = WhisperPhase.from_pretrained(tmp_path)
    changed = [*ids[:-1], ids[-1] + 1] if other else None
    with pytest.raises(ValueError, match="CTC head of other classes; give classes: FOLDER"):
        loaded.set_objective(objective(template, changed))


def test_decoding_gives_tokens_of_the_classes(folders, template, ids):
    head = phase(folders, template, ids).speech_classes()
    path = [3, 3, head.blank, 3, 0, head.blank]
    logits = functional.one_hot(torch.tensor(path), len(ids) + 1).float()
    assert head.token_ids(best_path(logits, head.blank)) == [ids[3], ids[3], ids[0]]
    assert phase(folders, template, None).speech_classes().token_ids([5, 7]) == [5, 7]


def test_what_compares_with_embeddings_is_for_the_llm(folders, template, ids, batch, as_batch):
    entry = ALL | {"classes": list(ids), "scores": "distance"}
    model = WhisperPhase.from_pretrained(folders / "whisper")
    model.set_objective(make_objective(ModelConfig(kind="whisper", losses=[entry]), template))
    given, _ = spoken(template, ids, batch, as_batch)
    with pytest.raises(ValueError, match="scores, sharpness and commitment are for kind osum"):
        model(given)

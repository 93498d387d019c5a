"""CTC greedy search answers labels too where an adapter has learned to hear them without the LLM."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.nn import functional

from wenet_osum import tasks
from wenet_osum.decode import ctc_search
from wenet_osum.decode.heard_labels import fields_heard
from wenet_osum.decode.modes import CTC_GREEDY_SEARCH
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.models.label_queries import LabelQueries, split_front

OPTIONS = DecodeOptions(mode=CTC_GREEDY_SEARCH)
FRAMES = [90, 41, 12]
LOSSES = [{"name": "ctc", "weight": 1.0}, {"name": "labels", "weight": 1.0, "scale": 5.0}]


@pytest.fixture
def hearing(parts, monkeypatch):
    """A model whose adapter puts emotion and gender in front of what it had before."""
    model, template = parts
    adapter, width = model.adapter, model.encoder.width
    torch.manual_seed(3)
    queries = LabelQueries(["emotion", "gender"], width, 32)
    queries.initialize(1.0)
    before = adapter.forward

    def with_labels(states, lengths):
        speech, counts = before(states, lengths)
        return torch.cat([queries(states, lengths), speech], 1), counts + 2

    monkeypatch.setattr(adapter, "forward", with_labels)
    adapter.label_queries = queries
    monkeypatch.setattr(model.config, "losses", LOSSES)
    yield model, template
    del adapter.label_queries


def answers(hearing, clips, batch_of, task, rows=None):
    model, template = hearing
    batch = batch_of(template, clips(FRAMES), [tasks.parse(task)] * 3, *([] if rows is None else [rows]))
    return ctc_search.generate(model, template, batch, OPTIONS, Counter())


def test_the_likeliest_label_by_the_scores_of_the_loss(hearing, clips, batch_of):
    model, template = hearing
    found = answers(hearing, clips, batch_of, "<TRANSCRIBE><GENDER><EMOTION>")
    plain = answers(hearing, clips, batch_of, "asr")
    table = model.get_input_embeddings().weight.detach()
    fields = {field.name: field for field in template.task("<GENDER><EMOTION>").label_fields}
    for answer, without, clip in zip(found, plain, clips(FRAMES), strict=True):
        assert answer.transcript == without.transcript and not answer.unread
        with torch.no_grad():
            front, _, _ = split_front(model.adapter, *model.adapted(clip[None], torch.tensor([len(clip)])))
        for heard, name in zip(front[0], ("emotion", "gender"), strict=True):
            words = [table[template.encode(label)].mean(0) for label in fields[name].labels.names]
            cosines = torch.stack([functional.cosine_similarity(heard, word, dim=0) for word in words])
            shares = (5.0 * cosines).softmax(0).tolist()
            assert list(answer.probs[name].values()) == pytest.approx(shares, abs=1e-4)
            assert answer.labels[name] == max(answer.probs[name], key=answer.probs[name].get)


@pytest.mark.parametrize("task", ["<EMOTION><TRANSCRIBE>", "<GENDER>", "ser"])
def test_any_order_and_alone_as_in_a_batch(hearing, clips, batch_of, task):
    together = answers(hearing, clips, batch_of, task)
    for row, answer in enumerate(together):
        assert not answer.unread and answer.task == tasks.parse(task).tags
        assert answer.labels.keys() == {field.name for field in tasks.parse(task).label_fields}
        [alone] = answers(hearing, clips, batch_of, task, [row])
        assert alone.text == answer.text and alone.labels == answer.labels


def test_a_model_hears_what_its_loss_has_trained(hearing, monkeypatch):
    model, _ = hearing
    assert fields_heard(model) == ("emotion", "gender")
    monkeypatch.setattr(model.config, "losses", LOSSES[:1])
    assert fields_heard(model) == ()

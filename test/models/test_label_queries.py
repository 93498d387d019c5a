"""Label fields have embeddings of their own in front of the speech, and a loss without the LLM."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel

from wenet_osum import config
from wenet_osum.models.label_queries import LabelQueries, split_front
from wenet_osum.models.objective import make_objective
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

FIELDS = ["emotion", "gender"]
CTC = {"name": "ctc", "weight": 0.5, "scores": "distance", "classes": [*range(10, 26)]}
LABELS = {"name": "labels", "weight": 2.0}
UTTERANCES = [
    Utterance("a", "a", labels={"gender": "male"}),
    Utterance("b", "b", labels={"emotion": "sad", "gender": "female"}),
    Utterance("c", "c", labels={"age": "child"}),
]


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat", "male female happy sad child"] * 9, 400))


def made(folders, **conf):
    torch.manual_seed(1)
    conf = {"heads": 2, "ffn": 48, "dropout": 0.0} | conf
    model = OsumModel.from_parts(folders / "whisper", folders / "tied", "ctc_shrink", conf).eval()
    model.config.losses = [CTC]
    return model


@pytest.fixture
def hearing(folders):
    return made(folders, label_queries=FIELDS)


def asked(as_batch, batch, **targets):
    whole = as_batch(batch, **targets)
    whole.tasks = ["<TRANSCRIBE>", "<TRANSCRIBE> <ALIGN>", "<TRANSCRIBE> <GENDER>"][: len(batch["feature_lengths"])]
    return whole


def test_pooling_is_attentive_statistics_over_what_exists():
    torch.manual_seed(0)
    queries = LabelQueries(FIELDS, 8, 16)
    torch.nn.init.normal_(queries.field)
    states, lengths = torch.randn(2, 7, 8), torch.tensor([7, 4])
    found = queries(states, lengths)
    normed = functional.layer_norm(states[1, :4], (8,), queries.norm.weight, queries.norm.bias)
    weights = (normed @ queries.attend.weight.T + queries.attend.bias).softmax(0)  # (4, 2)
    for field in range(2):
        own = weights[:, field : field + 1]
        mean = (own * normed).sum(0)
        deviation = ((own * (normed - mean).square()).sum(0) + 1e-5).sqrt()
        hidden = queries.hidden(torch.cat([mean, deviation])) + queries.field[field]
        expected = queries.output_norm(queries.output(functional.gelu(hidden)))
        torch.testing.assert_close(found[1, field], expected, atol=1e-5, rtol=1e-4)


def test_attention_begins_as_the_mean():
    queries = LabelQueries(FIELDS, 8, 16)
    queries.initialize(0.02)
    states, lengths = torch.randn(1, 5, 8), torch.tensor([5])
    shuffled = states[:, [3, 1, 0, 4, 2]]
    torch.testing.assert_close(queries(states, lengths), queries(shuffled, lengths), atol=1e-6, rtol=0)
    assert float(queries(states, lengths).detach().std()) == pytest.approx(0.02, rel=0.05)


def test_they_stand_in_front_of_speech_that_stays_as_it_is(folders, hearing, batch):
    plain = made(folders)
    state = plain.state_dict()
    missing = hearing.load_state_dict(state, strict=False).missing_keys
    assert missing and all(name.startswith("adapter.label_queries.") for name in missing)
    features, frames = batch["features"], batch["feature_lengths"]
    assert torch.equal(hearing.speech_tokens(frames), plain.speech_tokens(frames) + 2)

    # CTC reads the same; the LLM hears two more, shrunk or not.
    read = [split_front(model.adapter, *model.adapted(features, frames)) for model in (hearing, plain)]
    for mine, other in zip(read[0][1:], read[1][1:], strict=True):
        assert torch.equal(mine, other)
    for tasks in (None, ["srwt", "asr", "srwt"]):
        mine, lengths = hearing.padded_speech(features, frames, tasks)
        other, without = plain.padded_speech(features, frames, tasks)
        assert torch.equal(lengths, without + 2) and torch.equal(mine[:, 2:], other)
    front, _, _ = split_front(hearing.adapter, *hearing.adapted(features, frames))
    assert torch.equal(mine[:, :2], front)


def test_an_adapter_without_them_is_taken_over_and_one_with_them_too(folders, hearing, tmp_path):
    plain = made(folders)
    torch.nn.init.normal_(plain.adapter.input.weight)
    for source, target in ((plain.adapter, hearing.adapter), (hearing.adapter, made(folders).adapter)):
        before = copy.deepcopy(target.state_dict())
        target.load_state_dict(target.fit_state(source.state_dict()))
        after = target.state_dict()
        for name, tensor in after.items():
            expected = before if name.startswith("label_queries.") else source.state_dict()
            assert torch.equal(tensor, expected[name]), name
    other = made(folders, label_queries=["gender", "emotion", "age"]).adapter
    with pytest.raises(RuntimeError, match="label_queries.attend"):
        other.load_state_dict(other.fit_state(hearing.adapter.state_dict()))


def test_packed_equals_alone_and_saved_equals_loaded(hearing, batch, take, as_batch, tmp_path):
    packed = hearing(asked(as_batch, batch))
    alone = []
    for row in range(3):
        one = as_batch(take(batch, row))
        one.tasks = [asked(as_batch, batch).tasks[row]]
        alone.append(hearing(one).nll)
    torch.testing.assert_close(packed.nll, torch.cat(alone), atol=2e-5, rtol=0)

    hearing.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.adapter.label_queries.names == tuple(FIELDS)
    assert torch.equal(loaded(asked(as_batch, batch)).nll, packed.nll)


def with_labels(hearing, template, as_batch, batch, ce_weight=1.0):
    conf = config.ModelConfig(ce_weight=ce_weight, losses=[LABELS])
    hearing.set_objective(make_objective(conf, template))
    (_, loss) = hearing.objective.losses[0]
    # The LLM of the test has 64 tokens.
    loss.words = [[[token % 64 for token in ids] for ids in field] for field in loss.words]
    rows = [loss.targets(utterance)["labels"] for utterance in UTTERANCES]
    whole = asked(as_batch, batch)
    whole.targets = {"labels": torch.cat(rows)}
    return loss, whole


def test_the_loss_is_of_the_fields_that_are_known_and_heard(hearing, template, as_batch, batch):
    plain = hearing(asked(as_batch, batch)).loss
    loss, whole = with_labels(hearing, template, as_batch, batch)
    found = hearing(whole).loss

    front, _, _ = split_front(hearing.adapter, *hearing.adapted(whole.features, whole.feature_lengths))
    table = hearing.get_input_embeddings().weight
    names = [field.name for field in loss.fields]
    expected = 0.0
    for row, utterance in enumerate(UTTERANCES):
        for place, name in enumerate(FIELDS):
            label = utterance.labels.get(name)
            if label is None:
                continue
            column = names.index(name)
            words = [table[ids].mean(0) for ids in loss.words[column]]
            logits = torch.stack([15 * functional.cosine_similarity(front[row, place], word, dim=0) for word in words])
            right = loss.fields[column].labels.names.index(label)
            expected = expected + functional.cross_entropy(logits, torch.tensor(right))
    torch.testing.assert_close(found, plain + 2.0 * expected)


def test_labels_are_learned_without_the_llm(hearing, template, as_batch, batch):
    _, whole = with_labels(hearing, template, as_batch, batch, ce_weight=0.0)
    hearing.requires_grad_(False)
    hearing.adapter.label_queries.requires_grad_(True)
    optimizer = torch.optim.AdamW(hearing.adapter.label_queries.parameters(), lr=0.02)
    first = None
    for _ in range(20):
        loss = hearing(whole).loss
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * first


def test_what_needs_them_says_so(folders, hearing, template, as_batch, batch):
    for wrong, match in ((["emotions"], "did you mean 'emotion'"), (["gender", "gender"], "a field twice")):
        with pytest.raises(ValueError, match=match):
            made(folders, label_queries=wrong)
    _, whole = with_labels(plain := made(folders), template, as_batch, batch)
    with pytest.raises(ValueError, match="label_queries: .emotion, gender"):
        plain(whole)
    with pytest.raises(ValueError, match="scale 0 must be above 0"):
        make_objective(config.ModelConfig(losses=[LABELS | {"scale": 0}]), template)

    # At ce_weight 0 they need the loss, for DDP takes a weight without a gradient for a fault.
    hearing.set_objective(make_objective(config.ModelConfig(ce_weight=0.0, losses=[CTC | {"classes": None}]), None))
    hearing.requires_grad_(False)
    hearing.adapter.label_queries.requires_grad_(True)
    transcripts = {"transcript_ids": (batch["answer_ids"][:6], [3, 2, 1])}
    with pytest.raises(ValueError, match="runs no adapter.label_queries"):
        hearing(asked(as_batch, batch, **transcripts))


def test_in_half_precision(hearing, as_batch, batch):
    whole = hearing(asked(as_batch, batch))
    with torch.autocast("cpu", torch.bfloat16):
        cast = hearing(asked(as_batch, batch))
    half = copy.deepcopy(hearing).bfloat16()(asked(as_batch, batch))
    for output in (cast, half):
        torch.testing.assert_close(output.loss.float(), whole.loss, rtol=0.1, atol=0.0)

"""CTC over some of the LLM's tokens, by distance, with commitment: against slow references."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from wenet_osum.config import ModelConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models.ctc_scores import SHARPNESS, Scoring, mean_squared_distance, scoring_of
from wenet_osum.models.losses import ctc
from wenet_osum.models.objective import Speech, make_objective
from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template

TEXTS = ["red cat", "a cat sat", "red hat"]
BLANK = 7


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(TEXTS * 9, 400))


@pytest.fixture(scope="module")
def classes(template, tmp_path_factory):
    """A file of classes that can write ``TEXTS``."""
    path = tmp_path_factory.mktemp("classes") / "classes.json"
    path.write_text(json.dumps(ctc_classes.learn(template.tokenizer, TEXTS, 14)), encoding="utf-8")
    return str(path)


def speech_of(states, lengths, table, blank):
    return Speech(states, torch.tensor(lengths), 0.08, lambda: None, blank, table)


def test_distance_is_the_squared_distance_up_to_a_constant_of_each_state():
    torch.manual_seed(0)
    table, states = torch.randn(20, 6) * 0.1, torch.randn(2, 5, 6)
    compared = Scoring("distance").over(table, BLANK)
    spread = torch.cdist(table, table).square().mean()
    torch.testing.assert_close(mean_squared_distance(table), spread)
    slow = -SHARPNESS / spread * (states[:, :, None] - table).square().sum(-1)
    torch.testing.assert_close(compared.logits(states).log_softmax(-1), slow.log_softmax(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scores", ["dot", "distance"])
def test_classes_are_the_full_softmax_restricted(scores):
    torch.manual_seed(0)
    table, states, some = torch.randn(20, 6) * 0.1, torch.randn(2, 5, 6), (3, 4, 11)
    part = Scoring(scores, some).over(table, BLANK)
    rows = [*some, BLANK]
    # With the sharpness that the classes' own distances give.
    same = SHARPNESS * float(mean_squared_distance(table) / mean_squared_distance(table[rows]))
    whole = Scoring(scores, None, same).over(table, BLANK)
    logs = whole.logits(states).log_softmax(-1)[..., rows]
    torch.testing.assert_close(part.logits(states).log_softmax(-1), logs.log_softmax(-1), atol=1e-4, rtol=1e-4)
    assert part.blank == 3 and whole.blank == BLANK
    assert part.token_ids([2, 0]) == [11, 3] and whole.token_ids([2, 0]) == [2, 0]


@pytest.mark.parametrize("scores", ["dot", "distance"])
def test_the_loss_is_that_of_the_classes(template, classes, scores):
    torch.manual_seed(0)
    loss = ctc.Loss(template, scores=scores, classes=classes)
    table = torch.randn(len(template.tokenizer), 6) * 0.1
    states = torch.randn(2, 30, 6, requires_grad=True)
    targets = [loss.targets(Utterance("", "", text)) for text in TEXTS[:2]]
    found = loss(speech_of(states, [30, 25], table, template.end_id), join_targets(targets))
    rows = table[[*loss.encoder.ids, template.end_id]]
    for row, length in enumerate([30, 25]):
        mine = states[row, :length]
        if scores == "dot":
            logits = functional.rms_norm(mine, (6,)) @ rows.T
        else:
            scale = SHARPNESS / torch.cdist(rows, rows).square().mean()
            logits = -scale * (mine[:, None] - rows).square().sum(-1)
        ids = template.transcript(Utterance("", "", TEXTS[row]), loss.encoder.tokenizer)[0]
        wanted = torch.tensor([loss.encoder.ids.index(token) for token in ids])
        expected = functional.ctc_loss(logits.log_softmax(-1), wanted, (length,), (len(wanted),), blank=len(rows) - 1, reduction="sum")
        torch.testing.assert_close(found.values[row], expected, rtol=1e-3, atol=1e-3)
    reasons = (ctc.IMPOSSIBLE, ctc.NO_TRANSCRIPT, ctc.NOT_WRITTEN)
    assert {name: int(count) for name, count in found.left_out.items()} == dict.fromkeys(reasons, 0)


def test_what_no_class_writes_is_left_out_and_counted(template, classes):
    loss = ctc.Loss(template, classes=classes, word_times=True)
    words = [Word("zoo", 0.0, 0.4)]
    targets = join_targets([loss.targets(Utterance("", "", text, words=words)) for text in ("zoo", "red cat", "")])
    states = torch.randn(3, 20, 6, requires_grad=True)
    table = torch.randn(len(template.tokenizer), 6)
    found = loss(speech_of(states, [20, 20, 20], table, template.end_id), targets)
    assert found.left_out[ctc.NOT_WRITTEN] == 1 and found.values[0] == 0 and (found.values[1:] > 0).all()
    found.values.sum().backward()
    assert not states.grad[0].any() and states.grad.isfinite().all()


def slow_commitment(states, table, best, blank):
    return sum(float((s - table[c]).square().sum()) for s, c in zip(states, best, strict=True) if c != blank) / states.shape[-1] ** 0.5


def test_commitment_is_the_distance_of_what_is_spoken():
    torch.manual_seed(0)
    table, states = torch.randn(9, 4), torch.randn(2, 6, 4)
    states[0, 2:4] = table[BLANK] + 0.01
    compared = Scoring("distance").over(table, BLANK)
    logs = compared.logits(states).log_softmax(-1)
    found = ctc.commitment(states, torch.tensor([6, 3]), compared, logs)
    for row, length in enumerate([6, 3]):
        expected = slow_commitment(states[row, :length], table, logs[row, :length].argmax(-1), BLANK)
        assert float(found[row]) == pytest.approx(expected, rel=1e-5)


def test_commitment_is_never_more_than_the_ctc_loss_and_still_pulls():
    values, bounds = torch.tensor([8.0, 2.0, 0.0], requires_grad=True), torch.tensor([4.0, 4.0, 4.0])
    found = ctc._at_most(values, bounds)
    assert found.tolist() == [4.0, 2.0, 0.0]
    found.sum().backward()
    assert values.grad.tolist() == [0.5, 1.0, 1.0]


def test_commitment_adds_to_the_loss_and_not_to_impossible_transcripts(template, classes):
    torch.manual_seed(0)
    table, states = torch.randn(len(template.tokenizer), 6), torch.randn(2, 30, 6)
    plain, pulled = (ctc.Loss(template, scores="distance", classes=classes, commitment=weight) for weight in (0.0, 0.5))
    targets = join_targets([plain.targets(Utterance("", "", text)) for text in TEXTS[:2]])
    speech = speech_of(states, [30, 2], table, template.end_id)
    before, after = plain(speech, targets).values, pulled(speech, targets).values
    assert before[0] < after[0] <= 1.5 * before[0] + 1e-4 and before[1] == after[1] == 0


def test_what_is_kept_says_how_to_decode(template, classes, tmp_path):
    entry = {"name": "ctc", "weight": 1.0, "scores": "distance", "classes": classes}
    objective = make_objective(ModelConfig(losses=[entry]), template)
    [kept] = objective.entries
    ids = tuple(ctc_classes.read(template.tokenizer, classes))
    assert kept == entry | {"classes": list(ids)} and scoring_of([kept]) == Scoring("distance", ids)
    assert scoring_of(None) == scoring_of([]) == Scoring()
    (tmp_path / "config.json").write_text(json.dumps({"losses": [kept]}), encoding="utf-8")
    again = make_objective(ModelConfig(losses=[entry | {"classes": str(tmp_path)}]), template)
    assert again.entries == objective.entries, "a model folder brings its classes"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"scores": "cosine"}, "scores 'cosine' must be dot or distance"),
        ({"sharpness": 0}, "sharpness 0 must be above 0"),
        ({"commitment": -1}, "commitment -1 must be 0"),
        ({"classes": "nowhere.json"}, "make_ctc_classes.py"),
    ],
)
def test_bad_keys_are_refused(template, keys, why):
    with pytest.raises(ValueError, match=f"model.losses ctc: .*{why}"):
        make_objective(ModelConfig(losses=[{"name": "ctc", "weight": 1.0} | keys]), template)


def test_the_blank_is_no_class():
    with pytest.raises(ValueError, match="blank"):
        Scoring("dot", (3, BLANK)).over(torch.randn(9, 4), BLANK)


def test_phase_1_has_a_head_of_its_own(template):
    speech = Speech(torch.randn(1, 9, 4), torch.tensor([9]), 0.02, lambda: torch.randn(1, 9, 5), 4)
    loss = ctc.Loss(template, scores="distance")
    with pytest.raises(ValueError, match="are for kind osum"):
        loss(speech, {"transcript_ids": torch.tensor([1]), "transcript_ids_lengths": torch.tensor([1])})

"""CTC whose tokens keep to the times at which they are spoken, against a sum over all paths."""

import itertools

import pytest
import torch
from torch.nn import functional

from wenet_osum.config import ModelConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models.losses import ctc
from wenet_osum.models.losses.ctc import EXCLUDED, MARGIN_S, NO_TRANSCRIPT, Loss, ctc_losses
from wenet_osum.models.objective import Speech, make_objective
from wenet_osum.records import Utterance

BLANK, STATE_S = 0, 0.25
WHENEVER = (-torch.inf, torch.inf)


def by_paths(logits, ids, times):
    """-ln of the sum over all paths that read ``ids``; each state in which a token is said outside of its time costs ``EXCLUDED``."""
    states, classes = logits.shape
    logs, paths = logits.log_softmax(-1), []
    for path in itertools.product(range(classes), repeat=states):
        if [token for token, _ in itertools.groupby(path) if token != BLANK] != ids:
            continue
        total = sum(logs[n, token] for n, token in enumerate(path))
        for n, token in enumerate(path):
            spans = [span for i, span in zip(ids, times, strict=True) if i == token]
            timely = any((n + 1) * STATE_S > start - MARGIN_S and n * STATE_S < end + MARGIN_S for start, end in spans)
            total = total + (EXCLUDED if token != BLANK and not timely else 0.0)
        paths.append(total)
    return -torch.stack(paths).logsumexp(0)


def losses(logits, ids, times, lengths=None):
    lengths = torch.tensor([logits.shape[1]] * len(logits)) if lengths is None else torch.tensor(lengths)
    flat = torch.tensor([i for row in ids for i in row])
    spans = None if times is None else torch.tensor([span for row in times for span in row])
    return ctc_losses(logits.float().log_softmax(-1), lengths, flat, torch.tensor([len(row) for row in ids]), BLANK, spans, STATE_S)


@pytest.mark.parametrize(
    ("ids", "times"),
    [
        ([1, 2], [(0.1, 0.3), (0.9, 1.0)]),
        ([1, 1], [(0.0, 0.1), (0.6, 0.7)]),
        ([2, 1], [WHENEVER, (0.5, 0.6)]),
        ([2], [(0.6, 0.7)]),
    ],
)
def test_loss_and_gradient_are_those_of_all_paths(ids, times):
    torch.manual_seed(0)
    logits = torch.randn(5, 3, requires_grad=True)
    expected = by_paths(logits, ids, times)
    (wanted,) = torch.autograd.grad(expected, logits)
    found, impossible = losses(logits[None], [ids], [times])
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(gradient, wanted)
    assert int(impossible) == 0


def test_times_that_are_not_known_change_nothing():
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 9, 4), [[1, 2], [3]]
    plain, _ = losses(logits, ids, None)
    whenever, _ = losses(logits, ids, [[WHENEVER] * 2, [WHENEVER]])
    half, _ = losses(logits, ids, [[WHENEVER] * 2, [(0.5, 0.75)]])
    assert torch.equal(plain, whenever) and half[1] > plain[1]
    torch.testing.assert_close(half[0], plain[0])


def test_padding_and_impossible_transcripts():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 4, requires_grad=True)
    ids, times = [[1, 2], [3, 3, 3, 3]], [[(0.0, 0.5), (0.6, 0.9)], [(0.0, 1.0)] * 4]
    found, impossible = losses(logits, ids, times, lengths=[6, 5])
    alone, _ = losses(logits[:1, :6], ids[:1], times[:1])
    torch.testing.assert_close(found[:1], alone)
    assert int(impossible) == 1 and float(found[1]) == 0.0
    found.sum().backward()
    assert torch.isfinite(logits.grad).all() and not logits.grad[1].any() and not logits.grad[0, 6:].any()


def test_a_word_before_its_time_costs_and_in_time_does_not():
    logits = torch.full((1, 8, 3), -4.0)
    logits[0, :, BLANK] = 4.0
    logits[0, 5, 1], logits[0, 5, BLANK] = 8.0, 0.0
    in_time, early = (float(losses(logits, [[1]], [[span]])[0]) for span in ((1.3, 1.5), (0.2, 0.4)))
    assert in_time < 0.1 < 10 < early
    assert float(functional.ctc_loss(logits[0].log_softmax(-1), torch.tensor([1]), (8,), (1,), blank=BLANK)) == pytest.approx(in_time, abs=0.05)


def test_a_blank_inside_a_word_can_be_excluded():
    """The word is spoken from 0 to 1.5 s; CTC spikes in its first state and is blank in the rest."""
    logits = torch.full((1, 8, 3), -4.0)
    logits[0, :, BLANK] = 4.0
    logits[0, 0, 1], logits[0, 0, BLANK] = 8.0, 0.0
    ids, times = torch.tensor([1]), torch.tensor([[0.0, 1.5]])
    logs, lengths = logits.log_softmax(-1), torch.tensor([8])
    spike, held = (float(ctc_losses(logs, lengths, ids, torch.tensor([1]), BLANK, times, STATE_S, blanks)[0]) for blanks in (True, False))
    assert spike < 0.1 < 5 < held


def test_word_times_are_asked_for_only_where_they_are_used():
    class Template:
        def transcript(self, utterance):
            return [1, 2], [(0.0, 0.5), WHENEVER]

    known = Utterance("", "", "red cat")
    assert [*Loss(Template()).targets(known)] == ["transcript_ids"]
    targets = Loss(Template(), word_times=True).targets(known)
    assert targets["transcript_times"].tolist() == [[0.0, 0.5], [*WHENEVER]]
    with pytest.raises(ValueError, match="needs word_times: true"):
        Loss(Template(), blanks_in_words=False)


class Words:
    """Stands in for a Template: every word is class 1."""

    def transcript(self, utterance):
        words = utterance.txt.split()
        return [1] * len(words), [WHENEVER] * len(words)


LABEL_ONLY = Utterance("", "", labels={"event": "cough"})
SPOKEN, SILENT = Utterance("", "", "red"), Utterance("", "", "")


@pytest.mark.parametrize("word_times", [False, True])
def test_an_utterance_without_a_transcript_is_left_out_and_a_silent_one_is_blanks(word_times):
    torch.manual_seed(0)
    logits = torch.randn(3, 6, 4, requires_grad=True)
    loss = Loss(Words(), word_times=word_times)
    speech = Speech(logits, torch.tensor([6, 6, 6]), STATE_S, lambda: logits, BLANK)
    targets = join_targets([loss.targets(utterance) for utterance in (SPOKEN, LABEL_ONLY, SILENT)])
    found = loss(speech, targets)
    assert found.values[1] == 0 and found.left_out[NO_TRANSCRIPT] == 1
    blanks = -logits.log_softmax(-1)[2, :, BLANK].sum()
    torch.testing.assert_close(found.values[2], blanks)
    found.values.sum().backward()
    assert not logits.grad[1].any() and logits.grad[0].any() and logits.grad[2].any()


def test_nothing_is_learned_from_a_label_alone_without_answers():
    """So its answer tokens must not count in the weight that the sum of CTC is divided by."""
    entry = {"name": "ctc", "weight": 1.0}
    alone = make_objective(ModelConfig(losses=[entry], ce_weight=0.0), Words())
    assert alone.targets(LABEL_ONLY) is None
    assert alone.targets(SPOKEN)["transcript_ids"].tolist() == [1]
    assert alone.targets(SILENT)["transcript_ids"].tolist() == []
    beside = make_objective(ModelConfig(losses=[entry]), Words())
    assert beside.targets(LABEL_ONLY) is not None, "its answer is learned"


def test_a_blank_may_stand_at_the_borders_of_a_word():
    """A word said twice needs one between the two; only well inside a word is it excluded."""
    states = torch.zeros(1, 8, 3)
    one = torch.tensor([1])
    added = ctc._constraint(states, one, one, BLANK, torch.tensor([[0.15, 0.41]]), 0.08, blanks_in_words=False)
    assert added[0, :, BLANK].nonzero().flatten().tolist() == [3], "0.24 to 0.32 s of 0.15 to 0.41 s"

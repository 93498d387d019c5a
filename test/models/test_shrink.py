"""Runs of equal CTC classes: which states make which embedding."""

from __future__ import annotations

import pytest
import torch

from wenet_osum.models.shrink import check_tasks, find_runs, keeps_all

BLANK = 0
# A blank, a a, blank, b, two blanks; and in the second row c, c, padding that would be a run more.
LABELS = torch.tensor([[0, 1, 1, 0, 2, 0, 0], [3, 3, 4, 5, 0, 0, 4]])
LENGTHS = torch.tensor([7, 2])


def members(runs):
    """The states of each embedding that have weight, and those weights."""
    found = []
    for row, length in zip(runs.weights, runs.lengths.tolist(), strict=True):
        assert not row[length:].any()
        found.append([{n: float(w) for n, w in enumerate(e) if w} for e in row[:length]])
    return found


@pytest.mark.parametrize(
    ("blanks", "first_row"),
    [
        ("keep", [[0], [1, 2], [3], [4], [5, 6]]),
        ("drop", [[1, 2], [4]]),
        ("pool", [[0, 3, 5, 6], [1, 2], [4]]),
    ],
)
def test_means_of_runs(blanks, first_row):
    runs = find_runs(LABELS, LENGTHS, BLANK, blanks, "mean")
    expected = [dict.fromkeys(run, 1 / len(run)) for run in first_row]
    assert members(runs) == [expected, [{0: 0.5, 1: 0.5}]]


@pytest.mark.parametrize(
    ("blanks", "first_row"), [("keep", [0, 1, 3, 4, 5]), ("drop", [1, 4]), ("pool", [None, 1, 4])]
)
def test_first_states_of_runs(blanks, first_row):
    """But the common embedding of pooled blanks is their mean."""
    runs = find_runs(LABELS, LENGTHS, BLANK, blanks, "first")
    pooled = dict.fromkeys((0, 3, 5, 6), 0.25)
    expected = [pooled if n is None else {n: 1.0} for n in first_row]
    assert members(runs) == [expected, [{0: 1.0}]]
    firsts = [0 if n is None else n for n in first_row]
    assert runs.firsts[0].nonzero()[:, 0].tolist() == firsts


@pytest.mark.parametrize("blanks", ["drop", "pool"])
@pytest.mark.parametrize("kind", ["first", "mean"])
def test_of_silence_one_embedding_remains(blanks, kind):
    labels = torch.zeros(2, 4, dtype=torch.int64)
    labels[1, 0] = 2
    runs = find_runs(labels, torch.tensor([3, 4]), BLANK, blanks, kind)
    third = pytest.approx(1 / 3)
    assert members(runs)[0] == [{0: third, 1: third, 2: third}]


def test_which_tasks_keep_all():
    assert keeps_all("<TRANSCRIBE> <ALIGN>", ["srwt"]) and keeps_all("srwt", ["srwt"])
    assert keeps_all("<TRANSCRIBE> <ALIGN> <EMOTION>", ["srwt"]), "its words have times as well"
    assert not keeps_all("<TRANSCRIBE>", ["srwt"]) and not keeps_all("srwt", [])
    assert keeps_all("<GENDER> <EMOTION>", ["asr", "<EMOTION>"]) and not keeps_all("", ["asr"])
    assert check_tasks("ser") == ("ser",)
    with pytest.raises(ValueError, match="adapter_conf: unshrunk: .*did you mean 'srwt'"):
        check_tasks(["srwd"])

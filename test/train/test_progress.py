from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from wenet_osum.records import Batch
from wenet_osum.train.progress import LOG, Meter, Progress, duration, line, summary
from wenet_osum.train.tally import Tally, merge, scores


def batch(filler: bool = False) -> Batch:
    ones = torch.ones(2, dtype=torch.int64)
    return Batch(
        keys=["a", "b"],
        tasks=["<TRANSCRIBE>", "<AGE>"],
        features=torch.zeros(2, 10, 4),
        feature_lengths=torch.tensor([10, 5]),
        prompt_ids=ones,
        prompt_lengths=ones,
        answer_ids=torch.arange(5),
        answer_lengths=torch.tensor([3, 2]),
        answer_weights=torch.tensor([1.0, 1.0, 2.0, 1.0, 0.0]),
        audio_s=[0.1, 0.05],
        dropped={"audio: unreadable": 1},
        filler=filler,
    )


def output(**further):
    nll, correct = torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0]), torch.tensor([True, False, True, False, True])
    return SimpleNamespace(nll=nll, correct=correct, further={name: torch.tensor(value) for name, value in further.items()}, left_out=None)


def test_tally_weights_tokens_and_splits_tasks():
    tally = Tally()
    tally.add(batch(), output())
    rows = merge([tally.rows(), tally.rows()])
    assert rows["<TRANSCRIBE>"] == {"loss": pytest.approx(9 / 4), "acc": pytest.approx(3 / 4), "tokens": 8}
    assert rows["<AGE>"] == {"loss": 4.0, "acc": 0.0, "tokens": 2}


def test_labels_are_right_when_all_their_tokens_are():
    """Two utterances per task; the label of the first is right, the second has one token wrong, words do not matter."""
    tally = Tally()
    labeled = batch()
    labeled.tasks = ["<AGE>", "<AGE>"]
    labeled.answer_labels = torch.tensor([False, False, True, True, True])
    tally.add(labeled, output())
    rows = merge([tally.rows()])
    assert rows["<AGE>"]["labels"] == 0.5
    assert scores(rows) == "<AGE> 2.600/60.0%/50.0%" and scores({"asr": {"loss": 1.0, "acc": 0.5}}) == "asr 1.000/50.0%"


def test_fillers_count_nothing_but_their_drops():
    meter = Meter()
    meter.tally.add(batch(filler=True), output())
    meter.add(batch(filler=True))
    figures = meter.stats()
    assert figures["tasks"] == {} and figures["audio_s"] == 0 and figures["dropped"] == {"audio: unreadable": 1}


def test_summary_over_two_processes():
    meter = Meter()
    meter.add(batch())
    row = meter.stats() | {"elapsed": 2.0, "wait_s": 0.5}
    both = summary([row, row])
    assert both["padding"] == pytest.approx(0.25)
    assert both["data_wait"] == pytest.approx(0.25)
    assert both["audio_h_per_h"] == pytest.approx(0.15)
    assert both["tokens_per_s"] == pytest.approx(5)
    assert both["dropped"] == Counter({"audio: unreadable": 2})


def test_further_losses_are_told_by_name_over_all_answer_tokens():
    """Two micro-batches of five tokens that weigh 5 on one process, one on the other; fillers tell nothing."""
    ours, theirs = Meter(), Meter()
    for meter, values in ((ours, (1.0, 4.0)), (theirs, (10.0,))):
        for value in values:
            meter.add_output(batch(), output(ctc=value, labels=2.0))
        meter.add_output(batch(filler=True), output(ctc=1000.0))
    figures = summary([ours.stats(), theirs.stats()])
    assert figures["losses"] == {"ctc": pytest.approx(15 / 15), "labels": pytest.approx(6 / 15)}
    assert "<TRANSCRIBE> 2.250/75.0%  ctc 1.000  labels 0.400  lr" in line(5, None, 1, 1e-3, 2.0, figures, None)
    assert "losses" not in summary([Meter().stats()])


def test_log_is_cut_at_the_resumed_step(tmp_path):
    rows = [{"step": s, "split": "train", "task": "asr", "loss": 1.0} for s in (1, 2, 3)]
    (tmp_path / LOG).write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 3, "spl', encoding="utf-8")
    progress = Progress(tmp_path, active=True)
    progress.open(2, 10)
    progress.record(3, "dev", {"asr": {"loss": 0.5, "acc": 0.25, "tokens": 8}}, loss=0.5)
    progress.close()
    kept = [json.loads(row) for row in (tmp_path / LOG).read_text(encoding="utf-8").splitlines()]
    found = [(row["step"], row["split"], row["task"]) for row in kept]
    assert found == [(1, "train", "asr"), (2, "train", "asr"), (3, "dev", "asr"), (3, "dev", None)]
    assert kept[2]["acc"] == 0.25
    assert list((tmp_path / "tensorboard").iterdir())


def test_other_processes_write_nothing(tmp_path, capsys):
    progress = Progress(tmp_path, active=False)
    progress.open(0, 1)
    progress.log("hello")
    progress.record(1, "train", {"asr": {"loss": 1.0}})
    progress.close()
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_a_terminal_gets_a_bar_with_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(tmp_path, active=True)
    progress.open(2, 10)
    progress.advance()
    assert (progress.bar.done, progress.bar.total) == (3, 10)
    progress.log("a line of the log")
    progress.close()
    shown = capsys.readouterr()
    assert shown.out == "a line of the log\n"
    assert "] 3/10 steps, " in shown.err and " s left" in shown.err


def test_line_names_every_figure():
    figures = {"tasks": {"ser": {"loss": 1.5, "acc": 0.5}}, "audio_h_per_h": 12.0, "tokens_per_s": 34.0}
    text = line(5, 10, 1, 1e-3, 2.0, figures | {"padding": 0.031, "data_wait": 0.02, "memory_gib": 3.0}, 3725)
    for part in ("step 5/10", "epoch 1", "ser 1.500/50.0%", "lr 1.00e-03", "grad 2.00", "12.0 h/h"):
        assert part in text
    for part in ("34 tok/s", "padding 3.1%", "wait 2.0%", "3.00 GiB", "1:02:05"):
        assert part in text
    assert duration(59.9) == "0:00:59"

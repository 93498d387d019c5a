"""examples/asrx: the table of cells, the driver killed in the middle, and the page from known results."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.audio import write_wav

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "examples/asrx/local"
TEXTS = ("dogs are sitting", "kids are talking", "we call it bear")


@pytest.fixture(scope="module", autouse=True)
def local():
    """The recipe's modules, by their names in its folder."""
    names = [path.stem for path in LOCAL.glob("*.py")]
    sys.path.insert(0, str(LOCAL))
    yield
    sys.path.remove(str(LOCAL))
    for name in names:
        sys.modules.pop(name, None)


def module(name: str):
    return importlib.import_module(name)


def test_cells_are_every_arm_x_and_seed_with_one_seed_of_all_first():
    arms = module("arms")
    found = [*arms.cells()]
    assert len({cell.name for cell in found}) == len(found) == 90
    assert [cell.seed for cell in found] == [1] * 30 + [2] * 30 + [3] * 30
    assert Counter(cell.arm for cell in found) == {"alone": 30, "asr_x": 30, "label_first": 27, "together": 3}


@pytest.mark.parametrize(
    ("x", "arm", "tags"),
    [
        ("ser", "alone", "<EMOTION>"),
        ("ser", "asr_x", "<TRANSCRIBE><EMOTION>"),
        ("ser", "label_first", "<EMOTION><TRANSCRIBE>"),
        ("toy_sttc", "alone", "<S2TCHAT>"),
        ("ved", "together", "<TRANSCRIBE><CAPTION>"),
    ],
)
def test_what_an_arm_is_asked(x, arm, tags):
    arms = module("arms")
    assert arms.Cell(x, arm, 1).asked(arms.XS[x]) == tags


def test_the_cell_of_everything_draws_equally_from_every_source():
    arms = module("arms")
    cell = arms.Cell(arms.TOGETHER, arms.TOGETHER, 1)
    lists = [arms.train_list(x, "data") for x in arms.XS.values()] + [f"data/{corpus}/train/asr.list" for corpus in arms.RECOGNITION]
    sizes = {name: 100 * (i + 1) for i, name in enumerate(lists)}
    data = arms.mixture(cell, "data", sizes)
    assert {round(source.weight * sizes[source.list]) for source in data.train} == {arms.LABEL_DRAWS} and len(data.train) == 13


def test_a_step_holds_the_same_tokens_in_every_arm(work):
    arms, budget = module("arms"), module("budget")
    from wenet_osum import config
    from wenet_osum.dataset.dataset import Mixture
    from wenet_osum.text.template import Template

    template, found = Template.load(work / "shared"), {}
    rows = [json.loads(line) for line in (work / "data/ravdess/train/ser.list").read_text().splitlines()]
    many = [rows[i % 8] | {"key": f"k{i}", "duration": 0.5 + (i % 40) / 10} for i in range(400)]
    (work / "many.list").write_text("".join(json.dumps(row) + "\n" for row in many))
    for arm in ("alone", "asr_x", "label_first"):
        tags = arms.Cell("ser", arm, 1).asked(arms.XS["ser"])
        data = config.DataConfig(train=[config.SourceConfig("ser", str(work / "many.list"), tasks={tags: 1.0})])
        conf = config.load(ROOT / "examples/asrx/conf/train_cell.yaml")
        conf.batch.max_tokens = budget.limit_for(600, data, conf, template, 80)
        pools = Mixture(data, conf, template, 80).pools
        answers = {row["key"]: len(template.target(pools[0].tasks[0], u).ids) for row, u in zip(many, budget.read_manifest(work / "many.list"), strict=True)}
        found[arm] = (budget.a_step(pools, [answers], conf), conf.batch.max_tokens)
    assert all(step == pytest.approx(600, rel=0.03) for step, _ in found.values()) and len({limit for _, limit in found.values()}) == 3, found


def write_list(folder: Path, corpus: str, split: str, task: str, count: int) -> None:
    rows = []
    for i in range(count):
        wav = folder / f"wav/{corpus}-{split}-{i}.wav"
        wav.parent.mkdir(exist_ok=True)
        wav.write_bytes(write_wav(np.random.default_rng([i, count]).normal(0, 0.1, 8000).astype(np.float32)))
        rows.append({"key": f"{split}{i}", "wav": str(wav), "txt": TEXTS[i % 3], "lang": "en", "duration": 0.5, "emotion": ("sad", "happy")[i % 2], "gender": ("m", "f")[i % 2]})
    path = folder / f"data/{corpus}/{split}/{task}.list"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Tiny lists of two X, and a tiny model where cells begin."""
    from wenet_osum.models import build
    from wenet_osum.small.models import SmallWhisper, save_whisper
    from wenet_osum.small.train_tokenizer import train_tokenizer
    from wenet_osum.text.template import Template

    folder = tmp_path_factory.mktemp("asrx")
    for corpus, task in (("ravdess", "ser"), ("speechocean762", "sgc")):
        for split, count in (("train", 8), ("dev", 2), ("test", 4)):
            write_list(folder, corpus, split, task, count)
    torch.manual_seed(1)
    tokenizer = train_tokenizer([*TEXTS], 400)
    save_whisper(SmallWhisper(width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1), tokenizer, folder / "init")
    shared = build.load(folder / "init")
    shared.add_ctc_head(shared.blank)
    shared.save_pretrained(folder / "shared")
    Template(tokenizer).save(folder / "shared")
    return folder


def command(work: Path, *more: str) -> list[str]:
    words = [sys.executable, str(LOCAL / "cells.py"), "--shared", "shared", "--out", "cells", "--xs", "ser", "sgc", "--seeds", "1", *more]
    return [*words, *(word for setting in ("max_steps=4", "eval_every=1", "log_every=1", "optim.warmup_steps=1") for word in ("--override", setting))]


def drive(work: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(work, *more), cwd=work, capture_output=True, text=True, check=False, env=environment)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.mark.slow
def test_the_driver_goes_on_where_it_was_killed(work):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(work), cwd=work, env=environment, stdout=subprocess.DEVNULL)
    first, second = work / "cells/ser-alone-1/result.json", work / "cells/ser-asr_x-1/train/step_00000001/DONE"
    while not second.exists():
        assert process.poll() is None, "it ended before its second cell saved anything"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = first.stat().st_mtime_ns
    known = json.loads(first.read_text())
    assert known["steps"] == 4 and len(known["tests"]["ser"]["right"]) == 4 and not list(first.parent.glob("train/step_*"))
    assert "3 of 6 cells are finished" in drive(work, "--cells", "2").stdout
    assert first.stat().st_mtime_ns == written, "a finished cell was run again"
    assert "resumed from step_0000000" in (work / "cells/ser-asr_x-1/train/train.log").read_text()
    assert "6 of 6 cells are finished" in drive(work).stdout
    assert len({json.loads(path.read_text())["encoder"] for path in work.glob("cells/*/result.json")}) == 1
    module("page").main(["--cells", str(work / "cells"), "--out", str(work / "docs")])
    assert "6 of 90 cells" in (work / "docs/asrx.md").read_text()


def test_a_cell_that_another_process_holds_is_left_alone(work):
    cells = module("cells")
    with cells.claimed(work / "held") as ours, cells.claimed(work / "held") as again:
        assert ours and not again
    with cells.claimed(work / "held") as ours:
        assert ours


def test_answers_do_not_depend_on_the_batch_and_keep_to_the_labels(work, monkeypatch):
    answer = module("answer")
    from wenet_osum.models import build
    from wenet_osum.text.template import Template

    model, template = build.load(work / "shared"), Template.load(work / "shared")
    path = str(work / "data/ravdess/train/ser.list")
    together = answer.answers(model, template, path, "<TRANSCRIBE><EMOTION>")
    monkeypatch.setattr(answer, "BATCH", BatchConfig(max_utterances=1))
    alone = answer.answers(model, template, path, "<TRANSCRIBE><EMOTION>")
    assert len(together) == 8 and {k: h.text for k, h in together.items()} == {k: h.text for k, h in alone.items()}
    for key, found in together.items():
        assert found.labels["emotion"] == max(found.probs["emotion"], key=found.probs["emotion"].get)
        assert sum(found.probs["emotion"].values()) == pytest.approx(1) and found.probs["emotion"] == pytest.approx(alone[key].probs["emotion"], abs=1e-4)


def result(x: str, arm: str, seed: int, right: list[int], curve: list[list[float]] = ()) -> dict:
    test = {"task": "", "utterances": len(right), "majority": 50.0, "right": {f"u{i:02d}": r for i, r in enumerate(right)}, "figures": {}}
    if arm != "alone":
        test["figures"] = {"transcript/wer/en": [10.0 * seed, 0, 100]}
    found = {"cell": {"x": x, "arm": arm, "seed": seed}, "encoder": "abc", "commit": "c0ffee", "steps": 200, "seconds": 60.0, "audio_s": 8.0}
    return found | {"speech_tokens": 100, "answer_tokens": 20, "curve": {x: [*curve]}, "tests": {x: test}}


KNOWN = [
    result("ser", "alone", 1, [1] * 10 + [0] * 30, [[1, 0.5], [2, 0.25]]),
    result("ser", "alone", 2, [1] * 20 + [0] * 20, [[1, 0.5], [2, 0.75]]),
    result("ser", "asr_x", 1, [1] * 36 + [0] * 4, [[1, 0.5], [2, 0.75]]),
    result("ser", "asr_x", 2, [1] * 36 + [0] * 4),
    result("ved", "alone", 1, [1] * 30 + [0] * 10),
    result("ved", "asr_x", 1, [1] * 10 + [0] * 30),
]


def test_table_from_known_results(tmp_path):
    for found in KNOWN:
        folder = tmp_path / "cells" / "-".join(map(str, found["cell"].values()))
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(found))
    assert module("page").main(["--cells", str(tmp_path / "cells"), "--out", str(tmp_path / "docs")]) == 0
    text, picture = (tmp_path / "docs/asrx.md").read_text(), (tmp_path / "docs/asrx.svg").read_text()
    rows = {tuple(cells[:2]): cells for line in text.splitlines() if (cells := line.strip("| ").split(" | "))[0] in ("ser", "ved")}
    assert rows["ser", "X alone"][2:5] == ["2", rows["ser", "X alone"][3], "25.0–50.0"] and rows["ser", "X alone"][3].startswith("37.5 (")
    assert rows["ser", "ASR+X"][3].startswith("90.0 (") and rows["ser", "ASR+X"][5].startswith("+52.5 (") and rows["ser", "ASR+X"][6:9] == ["15.0 %", "100", "20"]
    assert rows["ved", "ASR+X"][5].startswith("-50.0 (")
    assert "6 of 90 cells" in text and "84 are still to be run" in text
    assert "better: ser +52.5; worse: ved -50.0; not told apart: none" in text
    assert "better than X alone for 1 of 2 X and worse for 1: a mixed answer" in text
    assert "| X alone | 1 | 25.0 | 12.5 |" in text, "spread over seeds of ser; steps back 25 and 0"
    assert picture.count("<polyline") == 2 and "ser: dev labels right" in picture and "--s1:" in picture


def test_intervals_that_hold_zero_settle_nothing():
    page, figures, arms = module("page"), module("figures"), module("arms")
    results = [result("ser", "alone", 1, [1, 0] * 20), result("ser", "asr_x", 1, [0, 1] * 20)]
    rows = {"ser": figures.rows_of(results, arms.XS["ser"])}
    assert "better: none; worse: none; not told apart: ser +0.0" in page.verdict(rows) and "no answer either way" in page.verdict(rows)


def test_a_page_without_cells_claims_nothing(tmp_path):
    assert module("page").main(["--cells", str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "asrx.md").read_text()
    assert "None of the 90 cells" in text and "nothing can be said" in text and "the paper holds" not in text


def test_differences_rest_on_the_seeds_both_arms_have():
    figures, arms = module("figures"), module("arms")
    more = result("ser", "asr_x", 3, [0] * 40)
    row = next(row for row in figures.rows_of([*KNOWN[:4], more], arms.XS["ser"]) if row.arm == "asr_x")
    assert len(row.seeds) == 3 and row.value == pytest.approx(60) and row.difference == pytest.approx(52.5)


@pytest.mark.parametrize(("name", "value"), [("encoder", "other"), ("steps", 7)])
def test_cells_of_different_runs_are_not_compared(tmp_path, name, value):
    for i, found in enumerate((KNOWN[0], KNOWN[2] | {name: value})):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "result.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"differ in {name}"):
        module("page").read(tmp_path)


def write_sound(path: Path, number: int, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_wav(np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)))


@pytest.fixture
def corpora(tmp_path):
    """Small folders of the official layouts of fsdd, RAVDESS, ESC-50 and speechocean762."""
    for digit in range(10):
        for take in (0, 5, 45):
            write_sound(tmp_path / f"fsdd/recordings/{digit}_anna_{take}.wav", digit, 0.2)
    for actor in range(1, 5):
        for emotion in range(1, 9):
            write_sound(tmp_path / f"ravdess/Actor_{actor:02d}/03-01-{emotion:02d}-01-01-01-{actor:02d}.wav", emotion)
    for actor in (5, 6):
        write_sound(tmp_path / f"ravdess/Actor_{actor:02d}/03-01-03-01-02-01-{actor:02d}.wav", actor)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in ((20, "crying_baby"), (21, "sneezing"), (0, "dog")):
            name = f"{fold}-{100 * fold + target}-A-{target}.wav"
            rows.append(f"{name},{fold},{target},{category},True,{100 * fold + target},A")
            write_sound(tmp_path / "esc50/audio" / name, fold + target)
    (tmp_path / "esc50/meta").mkdir()
    (tmp_path / "esc50/meta/esc50.csv").write_text("\n".join(rows) + "\n")
    for split, speakers in (("train", range(1000, 1020)), ("test", range(2000, 2004))):
        write_kaldi(tmp_path / "speechocean762", split, speakers)
    return tmp_path


def write_kaldi(folder: Path, split: str, speakers: range) -> None:
    tables = {name: [] for name in ("wav.scp", "text", "utt2spk", "spk2age", "spk2gender")}
    for speaker in speakers:
        write_sound(folder / f"WAVE/{speaker}.WAV", speaker, 1.0)
        tables["wav.scp"].append(f"u{speaker} WAVE/{speaker}.WAV")
        tables["text"].append(f"u{speaker} WE CALL IT {speaker}")
        tables["utt2spk"].append(f"u{speaker} {speaker}")
        tables["spk2age"].append(f"{speaker} {(6, 30)[speaker % 2]}")
        tables["spk2gender"].append(f"{speaker} {'mf'[speaker // 2 % 2]}")
    (folder / split).mkdir(parents=True)
    for name, lines in tables.items():
        (folder / split / name).write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_recipe_from_corpora_to_page(corpora, tmp_path, smoke):
    """Every stage at two steps; one cell of 90, which a second call does not run again."""
    options = ["--data_dir", str(corpora), "--page", str(tmp_path / "page"), "--toy_scale", "0.001"]
    options += ["--cells", "1"]
    override = "max_steps=2 eval_every=1 log_every=1 optim.warmup_steps=1"
    smoke("asrx", tmp_path / "work", *options, override=override)
    assert "1 of 90 cells" in (tmp_path / "page/asrx.md").read_text()
    assert (tmp_path / "page/asrx.svg").exists()
    results = (tmp_path / "work/exp/cells").glob("*/result.json")
    assert [path.parent.name for path in results] == ["ved-alone-1"]
    said = smoke("asrx", tmp_path / "work", *options, "--stage", "5", override=override)
    assert "ved-asr_x-1 is finished, 1 now, 2 of 90" in said

"""examples/asrx: the table of cells, the driver killed in the middle, and the page from known results."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from wenet_osum.dataset.audio import write_wav

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "examples/asrx/local"
NATURAL = ROOT / "examples/natural"
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
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
    assert len({cell.name for cell in found}) == len(found) == 30
    assert [cell.seed for cell in found] == [1] * 16 + [2] * 7 + [3] * 7
    assert Counter(cell.arm for cell in found) == {"alone": 9, "asr_x": 9, "label_first": 9, "together": 3}
    assert [cell.name for cell in found if cell.trains_encoder] == ["ser_encoder-alone-1", "ser_encoder-asr_x-1", "ser_encoder-label_first-1"]


@pytest.mark.parametrize(
    ("x", "arm", "tags"),
    [
        ("ser", "alone", "<EMOTION>"),
        ("ser", "asr_x", "<TRANSCRIBE><EMOTION>"),
        ("ser", "label_first", "<EMOTION><TRANSCRIBE>"),
        ("ved", "together", "<TRANSCRIBE><CAPTION>"),
    ],
)
def test_what_an_arm_is_asked(x, arm, tags):
    arms = module("arms")
    assert arms.Cell(x, arm, 1).asked(arms.XS[x]) == tags


def test_all_arms_of_an_x_are_trained_on_the_same_list():
    arms = module("arms")
    lists = {arm: arms.mixture(arms.Cell("ser", arm, 1), "data").train[0] for arm in ("alone", "asr_x", "label_first")}
    assert {source.list for source in lists.values()} == {"data/ravdess/train/ser.list"}
    assert len({tags for source in lists.values() for tags in source.tasks}) == 3
    together = arms.mixture(arms.Cell(arms.TOGETHER, arms.TOGETHER, 1), "data")
    assert [source.name for source in together.train] == ["ser", "sap", "sgc", "ved"] and len(together.dev) == 4


def test_a_training_list_holds_half_an_hour_at_even_distances():
    from wenet_osum.records import Utterance

    rows = [Utterance(f"u{i}", "a.wav", txt="a", duration=4.0, labels={"emotion": "sad"}) for i in range(1000)]
    prepare = module("prepare")
    chosen = prepare.chosen_of(rows, "train", "ser")
    assert sum(u.duration for u in chosen) == 1800 and [u.key for u in chosen[:3]] == ["u0", "u2", "u4"]
    assert len(prepare.chosen_of(rows, "test", "ser")) == 300 and len(prepare.chosen_of(rows[:30], "train", "ser")) == 30


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
    """Tiny lists of two X, and a tiny model of natural's phase 2, where cells begin."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from wenet_osum.models.osum import OsumModel
    from wenet_osum.small.models import SmallWhisper, save_whisper
    from wenet_osum.small.train_tokenizer import train_tokenizer
    from wenet_osum.text.template import Template

    folder = tmp_path_factory.mktemp("asrx")
    for corpus, task in (("ravdess", "ser"), ("speechocean762", "sgc")):
        for split, count in (("train", 8), ("dev", 2), ("test", 4)):
            write_list(folder, corpus, split, task, count)
    torch.manual_seed(1)
    tokenizer = train_tokenizer([*TEXTS], 400)
    save_whisper(SmallWhisper(width=16, heads=2, ffn=32, encoder_layers=6, decoder_layers=1), tokenizer, folder / "whisper")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder / "llm")
    adapter = yaml.safe_load((NATURAL / "conf/train_2_align.yaml").read_text())["model"]["adapter_conf"] | {"heads": 2}
    shared = OsumModel.from_parts(folder / "whisper", folder / "llm", adapter="ctc_shrink", adapter_conf=adapter)
    shared.config.losses = [{"name": "ctc", "weight": 1.0, "scores": "distance", "commitment": 30}]
    shared.save_pretrained(folder / "shared")
    tokenizer.chat_template = CHAT
    Template(tokenizer, template="chat", lowercase=True).save(folder / "shared")
    return folder


def command(work: Path, *more: str) -> list[str]:
    words = [sys.executable, str(LOCAL / "cells.py"), "--shared", "shared", "--out", "cells", "--results", "results", "--xs", "ser", "sgc", "--seeds", "1", *more]
    return [*words, *(word for setting in ("max_epochs=null", "max_steps=4", "eval_every=1", "log_every=1", "optim.warmup_steps=1") for word in ("--override", setting))]


def drive(work: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(work, *more), cwd=work, capture_output=True, text=True, check=False, env=environment)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.mark.slow
def test_the_driver_goes_on_where_it_was_killed(work):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(work), cwd=work, env=environment, stdout=subprocess.DEVNULL)
    first, second = work / "results/ser-alone-1.json", work / "cells/ser-asr_x-1/train/step_00000001/DONE"
    while not second.exists():
        assert process.poll() is None, "it ended before its second cell saved anything"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = first.stat().st_mtime_ns
    known = json.loads(first.read_text())
    assert known["steps"] == 4 and len(known["tests"]["ser"]["right"]) == 4 and not list(work.glob("cells/ser-alone-1/train/step_*"))
    assert "3 of 6 cells are finished" in drive(work, "--cells", "2").stdout
    assert first.stat().st_mtime_ns == written, "a finished cell was run again"
    assert "resumed from step_0000000" in (work / "cells/ser-asr_x-1/train/train.log").read_text()
    assert "6 of 6 cells are finished" in drive(work).stdout
    assert len({json.loads(path.read_text())["encoder"] for path in work.glob("results/*.json")}) == 1
    module("page").main(["--results", str(work / "results"), "--out", str(work / "docs")])
    assert "6 of 30 cells" in (work / "docs/asrx.md").read_text()


def test_a_cell_that_another_process_holds_is_left_alone(work):
    cells = module("cells")
    with cells.claimed(work / "held") as ours, cells.claimed(work / "held") as again:
        assert ours and not again
    with cells.claimed(work / "held") as ours:
        assert ours


def result(x: str, arm: str, seed: int, right: list[int], curve: list[list[float]] = ()) -> dict:
    test = {"task": "", "utterances": len(right), "majority": 50.0, "right": {f"u{i:02d}": r for i, r in enumerate(right)}, "figures": {}}
    if arm != "alone":
        test["figures"] = {"transcript/wer/en": [10.0 * seed, 0, 100]}
    found = {"cell": {"x": x, "arm": arm, "seed": seed}, "encoder": "abc", "commit": "c0ffee", "steps": 200, "epochs": 2, "seconds": 60.0, "audio_s": 7200.0}
    return found | {"answer_tokens": 20, "curve": {x: [*curve]}, "tests": {x: test}}


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
        name = "-".join(map(str, found["cell"].values()))
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / f"results/{name}.json").write_text(json.dumps(found))
    assert module("page").main(["--results", str(tmp_path / "results"), "--out", str(tmp_path / "docs")]) == 0
    text, picture = (tmp_path / "docs/asrx.md").read_text(), (tmp_path / "docs/asrx.svg").read_text()
    rows = {tuple(cells[:2]): cells for line in text.splitlines() if (cells := line.strip("| ").split(" | "))[0] in ("ser", "ved")}
    assert rows["ser", "X alone"][2:5] == ["2", rows["ser", "X alone"][3], "25.0–50.0"] and rows["ser", "X alone"][3].startswith("37.5 (")
    assert rows["ser", "ASR+X"][3].startswith("90.0 (") and rows["ser", "ASR+X"][5].startswith("+52.5 (") and rows["ser", "ASR+X"][6:9] == ["15.0 %", "2.00", "20"]
    assert rows["ved", "ASR+X"][5].startswith("-50.0 (")
    assert "6 of 30 cells" in text and "24 are still to be run" in text
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
    assert module("page").main(["--results", str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "asrx.md").read_text()
    assert "None of the 30 cells" in text and "nothing can be said" in text and "the paper holds" not in text


def test_an_encoder_in_bfloat16_has_a_hash_as_well(tmp_path):
    """That of other numbers; it is the same whatever stands beside the encoder."""
    found = []
    for number, dtype in enumerate((torch.float32, torch.bfloat16, torch.bfloat16)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"encoder.w": torch.ones(2, 3, dtype=dtype), "llm.w": torch.full((2,), float(number))}, folder / "model.safetensors")
        found.append(module("result").encoder_hash(folder))
    assert len(found[0]) == 12 and found[0] != found[1] == found[2]


def test_intervals_resample_speakers():
    """Two speakers, one of which is always right: drawn by utterances the interval is narrow, by speakers it is all there is."""
    figures, arms = module("figures"), module("arms")
    found = result("ser", "alone", 1, [1] * 20 + [0] * 20)
    by_utterance, by_speaker = found, json.loads(json.dumps(found))
    by_speaker["tests"]["ser"]["speakers"] = {key: "ab"[number // 20] for number, key in enumerate(sorted(by_speaker["tests"]["ser"]["right"]))}
    [narrow] = figures.rows_of([by_utterance], arms.XS["ser"])
    [wide] = figures.rows_of([by_speaker], arms.XS["ser"])
    assert (wide.low, wide.high) == (0.0, 100.0) and 30 < narrow.low < narrow.high < 70 and wide.value == narrow.value == 50


def test_differences_rest_on_the_seeds_both_arms_have():
    figures, arms = module("figures"), module("arms")
    more = result("ser", "asr_x", 3, [0] * 40)
    row = next(row for row in figures.rows_of([*KNOWN[:4], more], arms.XS["ser"]) if row.arm == "asr_x")
    assert len(row.seeds) == 3 and row.value == pytest.approx(60) and row.difference == pytest.approx(52.5)


@pytest.mark.parametrize(("name", "value"), [("encoder", "other"), ("epochs", 7)])
def test_cells_of_different_runs_are_not_compared(tmp_path, name, value):
    for i, found in enumerate((KNOWN[0], KNOWN[2] | {name: value})):
        (tmp_path / f"{i}.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"differ in {name}"):
        module("results").read_all(tmp_path)


def test_seeds_may_begin_from_different_trainings_but_arms_of_a_seed_may_not(tmp_path):
    results, page = module("results"), module("page")
    for number, found in enumerate((KNOWN[0], KNOWN[1] | {"encoder": "other"}, KNOWN[2])):
        (tmp_path / f"{number}.json").write_text(json.dumps(found))
    assert "encoders: seed 1 `abc`, seed 2 `other`." in page.state(results.read_all(tmp_path))
    results.check_beginning(tmp_path, [2], "other")
    results.check_beginning(tmp_path, [1, 3], "abc")
    with pytest.raises(ValueError, match="of seed 2 .* differ in encoder: abc, other"):
        results.check_beginning(tmp_path, [1, 2], "abc")


@pytest.mark.slow
def test_recipe_from_lists_to_page(work, tmp_path, smoke):
    """Every stage at two steps; a second call does not run the finished cell again."""
    for corpus in ("ravdess", "speechocean762", "esc50"):
        for split, count in (("train", 6), ("dev", 2), ("test", 2)):
            write_manifest_of(tmp_path / "natural", corpus, split, count)
    # As phase 2 of natural leaves it; what comes before is natural's own test.
    done = tmp_path / "natural/exp/2_align/step_00000001"
    shutil.copytree(work / "shared", done)
    (done / "state.json").write_text(json.dumps({"step": 1, "dev": {"asr": 1.0}}))
    (done / "DONE").touch()
    options = ["--natural", str(tmp_path / "natural"), "--page", str(tmp_path / "page")]
    options += ["--xs", "ser ser_encoder", "--seeds", "1"]
    override = "max_steps=2 eval_every=1 log_every=1 optim.warmup_steps=1 workers=0"
    smoke("asrx", tmp_path / "work", *options, "--stage", "4", "--cells", "1", override=override)
    assert "1 of 30 cells" in (tmp_path / "page/asrx.md").read_text()
    said = smoke("asrx", tmp_path / "work", *options, "--stage", "5", override=override)
    assert said.count("is finished") == 5 and "6 of 6 cells are finished" in said
    trained = (tmp_path / "work/exp/cells/ser_encoder-alone-1/train/train.log").read_text()
    assert "states after 4 layers of the encoder" in trained


def write_manifest_of(folder: Path, corpus: str, split: str, count: int) -> None:
    rows = []
    for i in range(count):
        wav = folder / f"wav/{corpus}-{split}-{i}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        wav.write_bytes(write_wav(np.random.default_rng([i, count]).normal(0, 0.1, 8000).astype(np.float32)))
        labels = {"emotion": ("sad", "happy")[i % 2], "gender": ("m", "f")[i % 2], "age": (6.0, 30.0)[i % 2], "event": ("cry", "sneeze")[i % 2]}
        rows.append({"key": f"{corpus}{split}{i}", "wav": str(wav), "txt": TEXTS[i % 3], "lang": "en", "duration": 0.5, "speaker": f"{corpus}{split}", **labels})
    path = folder / f"corpora/{corpus}/data/{split}/manifest.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

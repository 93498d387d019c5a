"""What recipes share in tools/recipe.sh: which configuration a phase has, and what published models change in it. Stand-ins note the commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"here": f"{ROOT}/examples/meld", "phases": "1 2 3 4", "nproc": "3", "average_num": "1", "override": "", "stage": "0", "stop_stage": "6"}
SETTINGS |= {"size": "small", "whisper": "", "llm": "", "published": "max_epochs=5", "memory_gib": "24"}


@pytest.fixture
def told(tmp_path):
    """Runs a line after sourcing recipe.sh; returns its exit status, what python and torchrun were told, and the messages."""
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/told"\n')
        (tmp_path / name).chmod(0o755)

    def run(line: str, **settings: str) -> tuple[int, list[str], str]:
        env = os.environ | SETTINGS | settings | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WENET_OSUM_ROOT": str(ROOT)}
        script = f"set -euo pipefail; . {ROOT}/tools/recipe.sh; {line}"
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
        lines = (tmp_path / "told").read_text().splitlines() if (tmp_path / "told").exists() else []
        return done.returncode, lines, done.stdout + done.stderr

    return run


def trained(lines: list[str]) -> list[str]:
    """Configuration and settings of each training, without where they lie."""
    return [line.split("--config ")[1].replace(f"{ROOT}/examples/", "") for line in lines if "bin.train" in line]


def test_small_models_take_the_phases_as_they_are(told):
    _, lines, _ = told("choose_models; train_phases d.yaml; initial_models m.jsonl", override="max_steps=2 eval_every=1")
    assert trained(lines)[0] == "osum/conf/small/train_1_whisper.yaml --data d.yaml --exp_dir exp/1_whisper --override max_steps=2 --override eval_every=1"
    assert [line.split()[0].split("/")[-1] for line in trained(lines)] == [f"train_{n}.yaml" for n in ("1_whisper", "2_adapter", "3_encoder", "4_llm")]
    assert "published" not in str(lines) and "max_epochs" not in str(lines)
    made = f"bin.make_models --text data/text/train.txt --manifest m.jsonl --conf {ROOT}/examples/osum/conf/small/models.yaml --out exp/init"
    assert lines[-1].startswith("torchrun --standalone --nproc_per_node 3 ") and lines[-1].endswith(made)


def test_published_models_are_named_where_they_are_loaded_and_the_user_has_the_last_word(told, tmp_path):
    (tmp_path / "my whisper").mkdir()
    _, lines, _ = told("choose_models; train_phases d.yaml", size="0.5b", whisper="my whisper", llm="Qwen/Qwen2-1.5B", override="max_epochs=1")
    first, second, third, fourth = trained(lines)
    model = f" --override model.whisper={tmp_path}/my whisper"
    assert first == f"osum/conf/0.5b/train_1_whisper.yaml --data d.yaml --exp_dir exp/1_whisper --override max_epochs=5{model} --override max_epochs=1"
    assert f"{model} --override model.llm=Qwen/Qwen2-1.5B --override max_epochs=1" in second
    assert "model." not in third + fourth and fourth.startswith("osum/conf/0.5b/train_4_lora.yaml") and "--exp_dir exp/4_lora" in fourth
    _, lines, _ = told("choose_models; train_phases d.yaml", size="7b", phases="4_full")
    assert trained(lines)[-1].startswith("osum/conf/7b/train_4_full.yaml")


def test_published_models_are_counted_before_they_run(told):
    _, lines, _ = told("choose_models; initial_models m.jsonl", size="7b", llm="Qwen/Qwen2-7B-Instruct", phases="2 4")
    (line,) = lines
    names = [word.split("/")[-1] for word in line.split() if word.endswith(".yaml")]
    assert "bin.estimate" in line and names == ["train_2_adapter.yaml", "train_4_lora.yaml"]
    assert line.endswith("--llm Qwen/Qwen2-7B-Instruct --devices 3 --memory_gib 24")


@pytest.mark.parametrize(("settings", "message"), [({"size": "1b"}, "--size 1b: known are 0.5b 7b small"), ({"whisper": "w"}, "are for published models")])
def test_wrong_choices_stop(told, settings, message):
    status, lines, said = told("choose_models; train_phases d.yaml", **settings)
    assert status == 1 and message in said and not lines


def test_recipes_with_confs_of_their_own_keep_them(told):
    _, lines, _ = told("train_phases d.yaml", here=f"{ROOT}/examples/ravdess", size="")
    assert trained(lines)[3].startswith("ravdess/conf/train_4_llm.yaml --data d.yaml --exp_dir exp/4_llm")


def test_each_test_set_that_is_there_is_decoded_and_scored_in_a_folder_of_its_own(told, tmp_path):
    for name in ("dev", "test_clean"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / f"data/{name}/manifest.jsonl").write_text(f"{name}\n")
    sets = {"test_sets": "test_clean test_other", "train_list": "", "normalizer": "basic"}
    _, lines, said = told('pack_and_list "asr srwt" speaker; decode "asr srwt"; score asr Title', size="", **sets)
    assert "data/test_other is not there and left out" in said and (tmp_path / "data/test/manifest.jsonl").read_text() == "test_clean\n"
    assert [line.split(" data/")[-1] for line in lines if "make_task_lists" in line] == ["dev", "test_clean"]
    assert lines[4].endswith("--out data/report.html train=data/train/manifest.jsonl dev=data/dev/manifest.jsonl test_clean=data/test_clean/manifest.jsonl")
    assert [line.split("--list ")[1] for line in lines if "recognize" in line] == [f"data/test_clean/{t}.list --task {t} --out exp/decode/test_clean/{t}" for t in ("asr", "srwt")]
    wanted = "--set asr=data/test_clean/asr.list,exp/decode/test_clean/asr --normalizer basic --out exp/score/test_clean --report --title Title, test_clean"
    assert lines[-1].endswith(wanted)


def test_one_test_set_stays_where_it_was_and_published_sizes_decode_on_all_devices(told, tmp_path):
    (tmp_path / "data/test").mkdir(parents=True)
    (tmp_path / "data/test/manifest.jsonl").write_text("")
    _, lines, _ = told("choose_models; decode ser; score ser Title", size="0.5b")
    assert lines[0].startswith("torchrun --standalone --nproc_per_node 3 -m wenet_osum.bin.recognize") and lines[0].endswith("--out exp/decode/ser")
    assert lines[1].endswith("exp/decode/ser --train_list data/train/manifest.jsonl --normalizer none --out exp/score --report --title Title")

"""The recipe of the real model: its lists, its stages that need no device, its job script."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wenet_osum import config, tasks
from wenet_osum.dataset import index
from wenet_osum.dataset.measure import measure_tokens
from wenet_osum.dataset.pool import build_pool
from wenet_osum.dataset.sample import SampleConfig, sample_from_audio
from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

RECIPE = Path(__file__).resolve().parents[2] / "examples/osum"
spec = importlib.util.spec_from_file_location("osum_prepare", RECIPE / "local/prepare.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)


def write(path: Path, count: int, speakers: int, **fields) -> None:
    rows = [{"key": f"{path.stem}{i}", "wav": f"{i}.wav", "speaker": f"s{i % speakers}", "txt": "one two"} | fields for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def keys(path: Path) -> set[str]:
    return {json.loads(line)["key"] for line in path.read_text(encoding="utf-8").splitlines()}


def test_the_mixture_has_eight_tasks_and_the_recipe_the_same():
    data = config.load(RECIPE / "conf/data.yaml", config.DataConfig)
    names = [row.name for row in data.train]
    assert len(names) == 8 and list(data.dev) == names == [next(iter(row.tasks)) for row in data.train]
    assert all(tasks.parse(name).name == name for name in names)
    assert f'tasks="{" ".join(names)}"' in (RECIPE / "run.sh").read_text(encoding="utf-8")


# base.yaml is no phase: the others build on it.
CONFS = sorted(path for size in ("7b", "0.5b") for path in (RECIPE / "conf" / size).glob("[!b]*.yaml"))


def timed_pool(conf: config.TrainConfig, template):
    """One row of 29 s with word times, Chinese at 4.5 characters per second, judged by a
    configuration.
    """
    words = [Word("你好世界"[i % 4], i / 4.5, (i + 1) / 4.5) for i in range(int(29 * 4.5))]
    row = Utterance("k", "k.wav", txt="".join(word.text for word in words), words=words)
    indices = [index.build("a.tar", "tar", [(row, 0, 1, 29.0)])]
    source = config.SourceConfig("srwt", "a.list", tasks={"srwt": 1.0})
    # a.tar is not there: nothing can be measured
    estimate = partial(measure_tokens, indices, template)
    pool = build_pool(source, indices, conf.batch, conf.filter, estimate, parse=template.task)
    sample_from_audio(row, np.zeros(29 * 16000, np.float32), pool.tasks[0], template, SampleConfig(filter=conf.filter))
    return pool


@pytest.mark.parametrize("path", [p for p in CONFS if "1_whisper" not in p.name], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_word_times_of_29_seconds_are_trained_on(path):
    template = Template(train_tokenizer(["你好世界"] * 9, vocab_size=500))
    # Qwen2 takes 12 tokens for a timed character, 14 after the tenth second; this tokenizer more
    assert len(template.encode("<12.34>你<12.56>")) > 14
    assert len(timed_pool(config.load(path), template)) == 1


@pytest.mark.parametrize("path", [p for p in CONFS if "1_whisper" in p.name], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_limits_of_phase_one_lie_within_the_decoder_of_whisper(path):
    limits = config.load(path).filter.max_target_tokens
    assert max(limits.values()) < 448


def test_phases_follow_each_other():
    for size in ("7b", "0.5b"):
        confs = {p.stem: config.load(p) for p in (RECIPE / "conf" / size).glob("[!b]*.yaml")}
        assert confs["train_2_adapter"].model.init_parts == {"encoder": "exp/1_whisper/final"}
        begun = {name: c.model.init_from for name, c in confs.items() if c.model.init_from}
        assert begun == {
            "train_3_encoder": "exp/2_adapter/final",
            "train_4_lora": "exp/3_encoder/final",
            "train_4_full": "exp/3_encoder/final",
            "finetune": "exp/4_lora/final",
        }
        audio = {c.batch.max_frames * c.optim.accumulation for n, c in confs.items() if n.startswith("train")}
        assert len(audio) == 1, "every phase takes as much audio a step"


def test_dev_is_set_aside_by_speaker(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "sgc.jsonl", 200, 50, gender="female")
    with open(source / "sgc.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"key": "mute", "wav": "x.wav", "txt": "no gender"}) + "\n")
    write(source / "sgc.test.jsonl", 3, 1, gender="male")
    arguments = ["--data_dir", str(source), "--out", str(tmp_path / "out"), "--tasks", "sgc"]
    assert prepare.main(arguments) == 1 and "train and test share 3 of 3 recordings" in capsys.readouterr().err
    test = source / "sgc.test.jsonl"
    test.write_text(test.read_text().replace('.wav"', '.test.wav"'))
    assert prepare.main(["--data_dir", str(source), "--out", str(tmp_path / "out"), "--tasks", "sgc"]) == 0
    train, dev, test = (tmp_path / "out" / name for name in ("train/sgc.jsonl", "dev/sgc.list", "test/sgc.list"))
    assert len(keys(train)) == 196 and len(keys(dev)) == 4 and not keys(train) & keys(dev) and len(keys(test)) == 3
    rows = [json.loads(line) for line in dev.read_text(encoding="utf-8").splitlines()]
    assert len({row["speaker"] for row in rows}) == 1 and Path(rows[0]["wav"]).is_absolute()
    assert "200 of 201 utterances hold transcript, gender" in capsys.readouterr().out


@pytest.mark.parametrize(("speakers", "task", "words"), [(1, "sgc", "nothing can be set aside"), (9, "ser", "has no utterance for task ser"), (9, "sap", "does not exist")])
def test_lists_that_cannot_be_used_are_told(tmp_path, capsys, speakers, task, words):
    if task != "sap":
        write(tmp_path / f"{task}.jsonl", 20, speakers, gender="male")
    assert prepare.main(["--data_dir", str(tmp_path), "--out", str(tmp_path / "out"), "--tasks", task]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("status", "expected", "queued"), [(85, 0, True), (0, 0, False), (3, 3, False)])
def test_the_job_queues_itself_again_after_85_only(tmp_path, status, expected, queued):
    """With stand-ins for srun, scontrol and python that note what they were told."""
    (tmp_path / "srun").write_text('#!/bin/bash\nshift\nexport SLURM_PROCID=3 SLURM_NTASKS=24 SLURM_LOCALID=3\nexec "$@"\n')
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\n[ "$1" = show ] && echo node7 || echo "$*" >> {tmp_path}/queued\n')
    (tmp_path / "python").write_text(f'#!/bin/bash\necho "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $*" > {tmp_path}/told\nexit {status}\n')
    for name in ("srun", "scontrol", "python"):
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[7-9]"}
    done = subprocess.run(["bash", str(RECIPE / "local/slurm.sh"), "--exp_dir", "exp/a b"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr
    assert (tmp_path / "told").read_text() == "3/24 3 node7 -m wenet_osum.bin.train --exp_dir exp/a b\n"
    assert (tmp_path / "queued").exists() == queued
    if queued:
        assert (tmp_path / "queued").read_text() == "requeue 77\n"

"""Every recipe run with stand-ins that note the commands: what is asked for, of whom, and in which order."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/run.sh"))
# Notes its words and makes the folder of --out; words with spaces stay one word between ⟨ ⟩.
STAND_IN = """#!/bin/bash
words=({name} "$@")
printf -v line '⟨%s⟩' "${{words[@]}}"
echo "$line" >> "{notes}"  # in one piece: asrx runs several at a time
case "$*" in *run_commands.py*) cat > /dev/null ;; esac  # else what pipes into it is told that nobody reads
while [ $# -gt 0 ]; do
  if [ "$1" = --out ]; then mkdir -p "$(dirname "$2")"; case $2 in *.*) ;; *) mkdir -p "$2" ;; esac; fi
  shift
done
"""


@pytest.fixture
def told(tmp_path):
    """Run stages of a recipe in a work folder as prepare.py leaves it; returns status, commands and messages."""
    notes, bin_folder, work = tmp_path / "notes", tmp_path / "bin", tmp_path / "work"
    bin_folder.mkdir()
    for name in ("python", "torchrun", "wget", "git"):
        (bin_folder / name).write_text(STAND_IN.format(name=name, notes=notes), encoding="utf-8")
        (bin_folder / name).chmod(0o755)
    for split in ("train", "dev", "test", "test_clean", "test_other"):
        (work / "data" / split).mkdir(parents=True)
        (work / "data" / split / "manifest.jsonl").write_text(f"{split}\n")
        for task in ("asr", "ser"):
            (work / "data" / split / f"{task}.list").write_text("")
    for corpus in (".", "toy", "fsdd", "speechocean762", "ravdess"):
        (work / "data" / corpus / "text").mkdir(parents=True)
        (work / "data" / corpus / "text/train.txt").write_text("one two\n")
    (work / "data/train/data.list").write_text("")
    (work / "data/tasks").write_text("asr ser\n")

    def run(recipe: str, *options: str) -> tuple[int, list[list[str]], str]:
        # the stand-ins come before the environment's own python
        env = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "VIRTUAL_ENV": "set"}
        command = ["bash", f"{ROOT}/examples/{recipe}/run.sh", "--work", str(work), *options]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
        lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
        return done.returncode, [line[1:-1].split("⟩⟨") for line in lines], done.stdout + done.stderr

    return run


@pytest.mark.parametrize(("gpus", "processes"), [(None, "2"), (0, "2"), (1, "1"), (8, "2")])
def test_no_more_processes_than_gpus(told, tmp_path, gpus, processes):
    """NCCL refuses two processes on one; what a machine has, nvidia-smi lists."""
    if gpus is not None:
        smi = tmp_path / "bin/nvidia-smi"
        smi.write_text("#!/bin/bash\n" + "echo 'GPU 0: a GPU'\n" * gpus)
        smi.chmod(0o755)
    status, commands, said = told("fsdd", "--stage", "3", "--stop_stage", "3")
    trained = [words for words in commands if words[0] == "torchrun"]
    assert status == 0 and trained, said
    assert {words[words.index("--nproc_per_node") + 1] for words in trained} == {processes}
    assert ("--nproc is 1: there are no more GPUs" in said) == (gpus == 1)


def test_a_label_map_counts_from_where_the_user_is(told, tmp_path, monkeypatch):
    """The root's run.sh goes into the recipe's folder and tells where it came from."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/my.yaml").write_text("label: {}")
    monkeypatch.setenv("RUN_FROM", str(tmp_path / "here"))
    for given, taken in (("my.yaml", f"{tmp_path}/here/my.yaml"), ("style", "style")):
        (tmp_path / "notes").unlink(missing_ok=True)
        _, commands, said = told("style", "--stage", "0", "--stop_stage", "0", "--map", given)
        assert commands[0][commands[0].index("--map") + 1] == taken, said


def source_of(words: list[str]) -> Path:
    """Return the Python file that a command runs."""
    if "-m" in words:
        return ROOT / (words[words.index("-m") + 1].replace(".", "/") + ".py")
    return Path(words[1])


def flags_of(path: Path) -> set[str]:
    """Return the options that the source of a command names, and those it takes from shared tables."""
    text = path.read_text(encoding="utf-8")
    known = set(re.findall(r"--[a-z_]+", text))
    for name in re.findall(r"^from wenet_osum\.bin\.(_\w+) import", text, re.MULTILINE):
        known |= flags_of(ROOT / f"wenet_osum/bin/{name}.py")
    if "command.parser(" in text:
        known |= {"--data_dir", "--out", "--strict_counts"}
    if path.name == "recognize.py":
        options = (ROOT / "wenet_osum/decode/options.py").read_text(encoding="utf-8")
        known |= {f"--{name}" for name in re.findall(r"^    (\w+):", options, re.MULTILINE)}
    if path.name in ("compute-wer.py", "compute-acc.py"):
        module = path.stem.replace("-", "_")
        known |= flags_of(ROOT / f"wenet_osum/score/{module}.py")
    return known


MORE = {"timestamp": ["--source", "source"], "osum": ["--size", "0.5b"]}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_is_there_and_knows_its_options(told, recipe):
    status, commands, said = told(recipe, "--stage", "0", *MORE.get(recipe, []))
    assert status == 0, said
    wrong = []
    for words in commands:
        path = source_of(words)
        assert path.is_file(), words
        used = {word.partition("=")[0] for word in words if re.match(r"--[a-z_]+(=|$)", word)}
        wrong += [f"{path.name} {flag}" for flag in used - flags_of(path) - {"--standalone", "--nproc_per_node"}]
        wrong += [word for word in words if word.endswith(".yaml") and "/conf/" in word and not Path(word).is_file()]
    assert not wrong
    ran = {source_of(words).name for words in commands}
    # asrx and toy decode in commands of their own, three others what lies in corpora/
    elsewhere = ("asrx", "natural", "toy", "soundwave", "kimi_audio")
    assert "recognize.py" in ran or recipe in elsewhere


def trainings(commands: list[list[str]]) -> list[str]:
    """Return configuration, data and settings of each training, without where they lie."""
    found = []
    for words in commands:
        if "wenet_osum.bin.train" in words:
            found.append(" ".join(words[words.index("--config") + 1 :]).replace(f"{ROOT}/examples/", ""))
    return found


def test_small_models_take_the_phases_as_they_are(told):
    _, commands, _ = told("meld", "--stage", "2", "--nproc", "3", "--override", "max_steps=2 eval_every=1")
    first, *_, last = trainings(commands)
    assert first == "osum/conf/small/train_1_whisper.yaml --data meld/conf/data.yaml --exp_dir exp/1_whisper --override max_steps=2 eval_every=1"
    assert last.startswith("osum/conf/small/train_4_llm.yaml")
    made = " ".join(commands[0])
    assert made.startswith("torchrun --standalone --nproc_per_node 3 -m wenet_osum.bin.make_models --text data/text/train.txt")
    assert made.endswith(f"--conf {ROOT}/examples/osum/conf/small/models.yaml --out exp/init")


def test_published_models_are_named_to_every_phase_and_the_user_has_the_last_word(told, tmp_path):
    (tmp_path / "my whisper").mkdir()
    names = ["--whisper", "my whisper", "--llm", "Qwen/Qwen2-1.5B"]
    _, commands, _ = told("meld", "--stage", "2", "--stop_stage", "3", "--size", "0.5b", *names, "--override", "max_epochs=1")
    models = f"--whisper {tmp_path}/my whisper --llm Qwen/Qwen2-1.5B"
    settings = "--override max_epochs=5 optim.warmup_steps=500 eval_every=500 max_epochs=1"
    assert all(line.endswith(f"{models} {settings}") for line in trainings(commands))
    assert trainings(commands)[-1].startswith("osum/conf/0.5b/train_4_lora.yaml"), "LoRA, not the full LLM"
    counted = " ".join(commands[0])
    assert "wenet_osum.bin.estimate" in counted and counted.count("/conf/0.5b/train_") == 4
    assert counted.endswith(f"{models} --devices 2 --memory_gib 24")


def test_phases_are_chosen_by_number_or_name(told):
    _, commands, _ = told("meld", "--stage", "3", "--stop_stage", "4", "--size", "7b", "--phases", "3 4_full")
    assert [line.split()[0] for line in trainings(commands)] == ["osum/conf/7b/train_3_encoder.yaml", "osum/conf/7b/train_4_full.yaml"]
    averaged = [words[words.index("--exp_dir") + 1] for words in commands if "wenet_osum.bin.average" in words]
    assert averaged == ["exp/3_encoder", "exp/4_full"], "each once: the last in stage 4"


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--size", "1b"], "--size 1b: known are 0.5b 7b small"), (["--whisper", "w"], "are for published models")],
)
def test_wrong_choices_stop(told, options, message):
    status, commands, said = told("meld", "--stage", "2", *options)
    assert status == 1 and message in said and not commands


def test_each_test_set_is_decoded_and_scored_in_a_folder_of_its_own(told, tmp_path):
    _, commands, said = told("librispeech", "--stage", "1")
    assert (tmp_path / "work/data/test/manifest.jsonl").read_text() == "test_clean\ntest_other\n"
    decoded = [" ".join(words[words.index("--list") :]) for words in commands if "wenet_osum.bin.recognize" in words]
    assert decoded == [f"--list data/{name}/asr.list --task asr --out exp/decode/{name}/asr" for name in ("test_clean", "test_other")]
    scored = [" ".join(words) for words in commands if "wenet_osum.bin.score" in words]
    assert scored[1].endswith("--normalizer basic --out exp/score/test_other --report --title LibriSpeech, test_other"), said


def test_the_paper_s_phases_are_compared_with_what_they_began_from(told):
    _, commands, _ = told("osum", "--stage", "3", "--stop_stage", "3")
    compared = [words[words.index("--exp_dir") + 1 : words.index("--dev")] for words in commands if "wenet_osum.bin.compare" in words]
    assert compared == [
        ["exp/1_whisper", "--before", "openai/whisper-medium"],
        ["exp/3_encoder", "--before", "exp/2_adapter/final"],
        ["exp/4_lora", "--before", "exp/3_encoder/final"],
    ]


def test_the_toy_trains_the_llm_or_lora(told):
    _, commands, _ = told("toy", "--stage", "3", "--stop_stage", "4")
    assert trainings(commands)[-1].startswith("toy/conf/train_4_llm.yaml") and "--num 1 --out exp/4_llm/average" in " ".join(commands[-1])
    assert "toy/conf/data_1.yaml --exp_dir exp/1_whisper" in trainings(commands)[0]


def test_help_is_what_the_script_itself_says():
    done = subprocess.run(["bash", str(ROOT / "examples/aishell/run.sh"), "--help"], capture_output=True, text=True, check=True)
    for line in ("  --average_num 3\n      checkpoints averaged", "  --data_dir $here/downloads/aishell\n", "  1  packing and checking"):
        assert line in done.stdout

"""Adding a task, a loss, a rescorer or a recipe touches one place.

For adapters and encoders see test/train/test_new_parts.py, for a metric test/score/test_scorer.py.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from wenet_osum import lookup, tasks
from wenet_osum.bin import recognize, score
from wenet_osum.config import BatchConfig, FilterConfig, ModelConfig, SourceConfig
from wenet_osum.corpus.split import split_by
from wenet_osum.dataset.batch import join_targets
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import Pool, build_pool
from wenet_osum.dataset.sample import SampleConfig, make_sample
from wenet_osum.dataset.shard import Handles, load_list, pack, read_utterance, write_list
from wenet_osum.decode import joint
from wenet_osum.models import objective
from wenet_osum.records import Batch, Utterance
from wenet_osum.report.data_report import report as data_report
from wenet_osum.text.template import Template

ROOT = Path(__file__).resolve().parents[1]


ENERGY = """
import torch
from wenet_osum.models.objective import UtteranceLosses
class Loss:
    kinds, needs_logits = ("osum",), False
    def __init__(self, template, power=2): self.power = power
    def targets(self, utterance): return {"wanted": torch.tensor([float(len(utterance.txt or ""))])}
    def __call__(self, speech, targets):
        return UtteranceLosses((speech.states.mean((1, 2)) - targets["wanted"]).abs() ** self.power)
"""


def test_a_loss_is_one_file(tmp_path):
    (tmp_path / "energy.py").write_text(ENERGY)
    package = __import__(objective.PACKAGE, fromlist=["losses"])
    before = list(package.__path__)
    try:
        lookup.add_folder(objective.PACKAGE, str(tmp_path))
        made = objective.make_objective(ModelConfig(losses=[{"name": "energy", "weight": 0.5, "power": 1}]), None)
    finally:
        package.__path__[:] = before
    targets = join_targets([made.targets(Utterance("", "", txt)) for txt in ("ab", "abc")])
    batch = Batch(["", ""], ["", ""], None, None, None, None, None, torch.tensor([1, 2]), torch.ones(3), targets=targets)
    speech = objective.Speech(torch.zeros(2, 4, 8), torch.tensor([4, 4]), 0.08, lambda: None, None)
    output = made(batch, speech, lambda: (torch.ones(3), torch.ones(3, dtype=torch.bool)), {})
    assert output.loss == 3.0 + 0.5 * (2 + 3)


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("return UtteranceLosses(torch.zeros(()))", ValueError, r"loss energy gives values of shape \(\); .*, \(2,\)"),
        ("return targets['other']", ValueError, "loss energy needs 'other' in the batch's targets"),
        ("return {}['own']", KeyError, "own"),
    ],
)
def test_a_loss_that_goes_wrong_is_told(tmp_path, monkeypatch, body, error, message):
    (tmp_path / "energy.py").write_text(ENERGY[: ENERGY.index("        return Utt")] + f"        {body}\n")
    package = __import__(objective.PACKAGE, fromlist=["losses"])
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{objective.PACKAGE}.energy", raising=False)
    made = objective.make_objective(ModelConfig(losses=[{"name": "energy", "weight": 0.5}]), None)
    batch = Batch(["", ""], ["", ""], None, None, None, None, None, torch.tensor([1, 2]), torch.ones(3), targets={})
    speech = objective.Speech(torch.zeros(2, 4, 8), torch.tensor([4, 4]), 0.08, lambda: None, None)
    with pytest.raises(error, match=message):
        made(batch, speech, lambda: (torch.ones(3), torch.ones(3, dtype=torch.bool)), {})
    sys.modules.pop(f"{objective.PACKAGE}.energy")


NEVER_FIRST = """
import torch
class State:
    def applies(self, walk, states): return True
    def advance(self, walk, token): return self
    def change(self, walk, logs, tokens, states): return torch.where(tokens == 1, -100.0, 0.0).double()
class Rescorer:
    losses, needs = (), ()
    def __init__(self, model, template, weights): pass
    def begin(self, states, front): return State()
"""


def test_a_rescorer_is_one_file(tmp_path):
    (tmp_path / "never_first.py").write_text(NEVER_FIRST)
    package = __import__(joint.PACKAGE, fromlist=["rescore"])
    before = list(package.__path__)
    model, template = SimpleNamespace(config=SimpleNamespace(losses=[])), SimpleNamespace(target_tokenization="by_field")
    try:
        lookup.add_folder(joint.PACKAGE, str(tmp_path))
        begun = joint.Rescorers(model, template, {"never_first": 0.5}).begin(torch.zeros(3, 8), torch.zeros(0, 8))
    finally:
        package.__path__[:] = before
    assert int(begun.scores(None, torch.tensor([0.0, 9.0, 1.0])).argmax()) == 2


def test_a_recipe_is_one_folder(tmp_path):
    shutil.copy(ROOT / "run.sh", tmp_path)
    (tmp_path / "examples/mine").mkdir(parents=True)
    (tmp_path / "examples/mine/run.sh").write_text("echo mine")
    shown = subprocess.run(["bash", "run.sh", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Known: mine" in shown.stdout
    wrong = subprocess.run(["bash", "run.sh", "--recipe", "yours"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "unknown recipe 'yours'; known: mine" in wrong.stderr


PAGE = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
(DOCS_TASK,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "TASK" in block]
# Under a name that nobody's file has: the page's own may be a file of ours some day.
DRAWL = DOCS_TASK.replace("accent", "drawl").replace("ACCENT", "DRAWL")
SPOKEN = ["n", "south", "NORTH", None]  # of the four utterances, as a corpus spells them


@pytest.fixture
def corpus(tmp_path):
    """Give four utterances with a label that no file of the toolkit names.

    They lie in manifest.jsonl, and in old.list of shards packed before the label's task is there.
    """
    rows = []
    for i, drawl in enumerate(SPOKEN):
        wav = str(tmp_path / f"{i}.wav")
        soundfile.write(wav, np.random.default_rng(i).normal(0, 0.1, 8000), 16000, subtype="PCM_16")
        row = {"key": f"k{i}", "wav": wav, "txt": "the cat", "lang": "en", "speaker": f"s{i}"}
        rows.append(row | {"drawl": drawl})
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = list(read_manifest(tmp_path / "manifest.jsonl"))
    assert before[0].labels == {} and before[0].extra == {"drawl": "n"}, "no task claims it yet"
    write_list(tmp_path / "old.list", pack(before, tmp_path / "old", checked=True, log=print).paths)
    return tmp_path


@pytest.fixture
def drawl(corpus):
    """Add the task in a folder of the user's own; what earlier calls cached must not hide it."""
    assert "drawl" not in tasks.label_names()
    folder = corpus / "my_tasks"
    folder.mkdir()
    (folder / "drawl.py").write_text(DRAWL, encoding="utf-8")
    before = list(tasks.__path__)
    lookup.add_folder("wenet_osum.tasks", str(folder))
    yield tasks.parse("drawl")
    tasks.__path__[:] = before
    for path in folder.glob("*.py"):
        sys.modules.pop(f"wenet_osum.tasks.{path.stem}", None)


def pool(path: Path, **source) -> Pool:
    conf = SourceConfig(**({"name": "mine", "list": str(path), "tasks": {"drawl": 1.0}} | source))
    return build_pool(conf, load_list(path, Counter()), BatchConfig(), FilterConfig(min_s=0.1))


@pytest.mark.parametrize("name", ["manifest.jsonl", "old.list", "new.list", "osum.list"])
def test_a_new_label_is_drawn_and_written_from_any_list(corpus, drawl, tiny_folder, name):
    rows = list(read_manifest(corpus / "manifest.jsonl"))
    assert rows[0].labels == {"drawl": "n"}
    assert "labels" not in rows[0].to_dict() and rows[0].to_dict()["drawl"] == "n"
    write_list(corpus / "new.list", pack(rows, corpus / "new", log=print).paths)
    asked = [row.with_values({"task": "drawl"}) for row in rows]
    write_list(corpus / "osum.list", pack(asked, corpus / "osum", layout="osum", log=print).paths)
    able = pool(corpus / name)
    if name != "osum.list":  # which does not hold the utterance without it
        assert able.dropped["mine: lacks drawl for drawl"] == 1
    assert [str(able.indices[0].keys[row]) for row in able.row] == ["k0", "k1", "k2"]
    assert pool(corpus / name, where={"drawl": "south"}).row.tolist() == [1]
    plan = Plan([able], BatchConfig(), seed=1, epoch=0)
    template, targets = Template.load(tiny_folder), {}
    conf = SampleConfig(filter=FilterConfig(min_s=0.1))
    for row in plan.column("row"):
        utterance, audio = read_utterance(able.indices[0], int(row), Handles())
        sample = make_sample(utterance, audio, drawl, template, conf)
        targets[utterance.key] = template.decode(sample.answer_ids)
    assert targets == {"k0": "the cat<north>", "k1": "the cat<south>", "k2": "the cat<north>"}


def test_a_new_label_is_decoded_scored_and_reported(corpus, drawl, tiny_folder):
    manifest, out = str(corpus / "manifest.jsonl"), str(corpus / "hyp")
    asked = ["--model", str(tiny_folder), "--list", manifest, "--out", out, "--max_tokens", "9"]
    assert recognize.main([*asked, "--task", "drawl"]) == 0
    lines = (corpus / "hyp/hyp.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    assert all(answer["labels"]["drawl"] in drawl.fields[1].labels.names for answer in answers)
    assert all(sum(answer["probs"]["drawl"].values()) == pytest.approx(1) for answer in answers)
    asked = ["--ref", manifest, "--hyp", out, "--out", str(corpus / "score"), "--resamples", "5"]
    assert score.main([*asked, "--task", "drawl", "--report"]) == 0
    scores = json.loads((corpus / "score/score.json").read_text(encoding="utf-8"))["scores"]
    found = {s["metric"]: s["value"] for s in scores if s["detail"].get("field") == "drawl"}
    pairs = zip(answers, ("north", "south", "north"), strict=False)  # the last has no truth
    right = sum(answer["labels"]["drawl"] == truth for answer, truth in pairs)
    assert found["accuracy"] == pytest.approx(100 * right / 3)
    assert "drawl" in (corpus / "score/report.html").read_text(encoding="utf-8")


def test_a_new_label_is_balanced_counted_and_converted(corpus, drawl):
    rows = list(read_manifest(corpus / "manifest.jsonl"))
    splits = split_by(rows, {"train": 0.5, "test": 0.5}, balance=["drawl"])
    page = data_report(splits, "Mine")
    assert "<h3>drawl</h3>" in page and "north" in page
    kaldi, lost = lookup.load("wenet_osum.dataset.formats", "kaldi"), Counter()
    kaldi.write(str(corpus / "kaldi"), rows, lost)
    back = list(kaldi.read(str(corpus / "kaldi"), Counter(), ""))
    assert [row.labels for row in back] == [row.labels for row in rows] and not lost


def test_what_was_loaded_or_packed_before_the_task_is_told_or_kept(corpus, request):
    (before,) = load_list(corpus / "old.list", Counter())
    rows = list(read_manifest(corpus / "manifest.jsonl"))[3:]
    (path,) = pack(rows, corpus / "bare", log=print).paths
    packed = Path(path).stat()
    request.getfixturevalue("drawl")
    conf = SourceConfig(name="mine", list="old.list", tasks={"drawl": 1.0})
    with pytest.raises(ValueError, match="no column 'drawl': it was loaded before .*load the list"):
        build_pool(conf, [before], BatchConfig(), FilterConfig(min_s=0.1))
    pack(list(read_manifest(corpus / "manifest.jsonl"))[3:], corpus / "bare", log=print)
    assert Path(path).stat().st_mtime_ns == packed.st_mtime_ns, "the same utterances, packed again"


def test_a_file_put_into_a_known_folder_later_is_seen(corpus, drawl):
    os.utime(corpus / "my_tasks", (1, 1))  # the file comes some time later
    assert "lilt" not in tasks.label_names()
    text = DRAWL.replace("drawl", "lilt").replace("DRAWL", "LILT")
    (corpus / "my_tasks/lilt.py").write_text(text, encoding="utf-8")
    assert "lilt" in tasks.label_names()


def test_a_label_field_may_read_a_field_of_the_record(corpus, drawl):
    text = DRAWL.replace('"drawl"', '"tongue"').replace("<DRAWL>", "<TONGUE>")
    text = re.sub(r'\{"north".*?\},', '{"Chinese": ["zh"], "English": ["en"]}, attribute="lang",', text)
    (corpus / "my_tasks/tongue.py").write_text(text, encoding="utf-8")
    task = tasks.parse("tongue")
    assert "lang" not in tasks.label_names()
    assert pool(corpus / "manifest.jsonl", tasks={"tongue": 1.0}).eligible.all()
    assert task.write(next(read_manifest(corpus / "manifest.jsonl"))) == "the cat<English>"


def test_a_set_of_labels_may_be_a_list(corpus, drawl):
    text = re.sub(r'\{"north".*?\},', '["north", "south"],', DRAWL.replace("drawl", "lilt").replace("DRAWL", "LILT"))
    (corpus / "my_tasks/lilt.py").write_text(text, encoding="utf-8")
    assert tasks.parse("lilt").fields[1].labels.names == ("north", "south")


def names_of(node: ast.AST) -> set[str]:
    """The texts of a literal list, tuple, set or table, and of a text that is split."""
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "split":
        return set(str(getattr(node.func.value, "value", "")).split())
    parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    return {str(part.value) for part in parts if isinstance(part, ast.Constant)}


def test_the_tasks_alone_list_the_labels():
    """Formats of others fix some names: the members of published shards."""
    fixed = {("dataset/tar.py", "OSUM")}
    known, found, seen = set(tasks.label_names()), [], set()
    for path in sorted((ROOT / "wenet_osum").rglob("*.py")):
        name = path.relative_to(ROOT / "wenet_osum").as_posix()
        if name.startswith("tasks/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        allowed = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (name, getattr(node.targets[0], "id", "")) in fixed:
                seen.add((name, node.targets[0].id))
                allowed.add(node.value)
            elif node not in allowed and len(names_of(node) & known) > 1:
                found.append(f"{name}:{node.lineno}: {sorted(names_of(node) & known)}")
    assert not found, "take them from tasks.label_names():\n" + "\n".join(found)
    assert seen == fixed, f"no longer there, so no longer allowed: {fixed - seen}"

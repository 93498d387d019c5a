"""Adding an adapter, a loss, a rescorer or a recipe touches one place. For a task see test/tasks/test_tasks.py, for a metric test/score/test_scorer.py."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import Qwen2Config, WhisperConfig

from wenet_osum import lookup
from wenet_osum.config import ModelConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.decode import joint
from wenet_osum.models import objective
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.records import Batch, Utterance

ROOT = Path(__file__).resolve().parents[1]
MEAN = """
import torch
class Adapter(torch.nn.Module):
    def __init__(self, width, llm_width, take=8):
        super().__init__()
        self.take, self.out = take, torch.nn.Linear(width, llm_width)
    def forward(self, frames, lengths):
        return self.out(frames[:, :: self.take]), (lengths + self.take - 1) // self.take
"""


def test_an_adapter_is_one_file(tmp_path):
    (tmp_path / "every_nth.py").write_text(MEAN)
    package = __import__("wenet_osum.models.adapter", fromlist=["adapter"])
    before = list(package.__path__)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    whisper = WhisperConfig(d_model=16, vocab_size=20, pad_token_id=0, bos_token_id=0, eos_token_id=0, encoder_ffn_dim=16, **sizes)
    llm = Qwen2Config(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, bos_token_id=0, eos_token_id=0
    )
    try:
        lookup.add_folder("wenet_osum.models.adapter", str(tmp_path))
        model = OsumModel(OsumConfig(encoder=whisper.to_dict(), llm=llm.to_dict(), adapter="every_nth", adapter_conf={"take": 4})).eval()
        speech, lengths = model.speech_embeddings(torch.randn(2, 40, 80), torch.tensor([40, 30]))
    finally:
        package.__path__[:] = before
    assert lengths.tolist() == [5, 4] and speech.shape == (9, 16)


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


NEVER_FIRST = """
import torch
class State:
    def applies(self, walk, states): return True
    def advance(self, walk, token): return self
    def change(self, walk, logs, tokens, states): return torch.where(tokens == 1, -100.0, 0.0).double()
class Rescorer:
    losses, needs = (), ()
    def __init__(self, model, template, weights): pass
    def begin(self, states): return State()
"""


def test_a_rescorer_is_one_file(tmp_path):
    (tmp_path / "never_first.py").write_text(NEVER_FIRST)
    package = __import__(joint.PACKAGE, fromlist=["rescore"])
    before = list(package.__path__)
    model, template = SimpleNamespace(config=SimpleNamespace(losses=[])), SimpleNamespace(join="fields")
    try:
        lookup.add_folder(joint.PACKAGE, str(tmp_path))
        begun = joint.Rescorers(model, template, {"never_first": 0.5}).begin(torch.zeros(3, 8))
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

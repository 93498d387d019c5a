"""Adding an adapter or a recipe touches one place. For a task see test/tasks/test_tasks.py, for a metric test/score/test_scorer.py."""

import shutil
import subprocess
from pathlib import Path

import torch
from transformers import Qwen2Config, WhisperConfig

from wenet_osum import lookup
from wenet_osum.models.osum import OsumConfig, OsumModel

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


def test_a_recipe_is_one_folder(tmp_path):
    shutil.copy(ROOT / "run.sh", tmp_path)
    (tmp_path / "examples/mine").mkdir(parents=True)
    (tmp_path / "examples/mine/run.sh").write_text("echo mine")
    shown = subprocess.run(["bash", "run.sh", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Known: mine" in shown.stdout
    wrong = subprocess.run(["bash", "run.sh", "--recipe", "yours"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "unknown recipe 'yours'; known: mine" in wrong.stderr

"""Adding a recipe touches one place. For adapters and encoders see test/train/test_new_parts.py, for a metric test/score/test_scorer.py."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_recipe_is_one_folder(tmp_path):
    shutil.copy(ROOT / "run.sh", tmp_path)
    (tmp_path / "examples/mine").mkdir(parents=True)
    (tmp_path / "examples/mine/run.sh").write_text("echo mine")
    shown = subprocess.run(["bash", "run.sh", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Known: mine" in shown.stdout
    wrong = subprocess.run(["bash", "run.sh", "--recipe", "yours"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "unknown recipe 'yours'; known: mine" in wrong.stderr

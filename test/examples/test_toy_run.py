"""examples/toy from corpus to report, in its small form, in a copy so that the checkout stays clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_toy_mini_ends_with_a_report(tmp_path):
    """Every stage in order, two training processes; the report and the table are there in the end."""
    made = shutil.ignore_patterns("data", "exp", "__pycache__")
    shutil.copytree(ROOT / "examples/toy", tmp_path / "examples/toy", ignore=made)
    for name in ("wenet_osum", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    # its configurations build on those of all small recipes
    (tmp_path / "examples/osum").symlink_to(ROOT / "examples/osum")
    shutil.copy(ROOT / "path.sh", tmp_path)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    command = ["bash", "run.sh", "--mini", "true"]
    recipe = tmp_path / "examples/toy"
    done = subprocess.run(command, cwd=recipe, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list(recipe.glob("mini/exp/**/*.html")), f"no report under exp/:\n{done.stdout[-2000:]}"

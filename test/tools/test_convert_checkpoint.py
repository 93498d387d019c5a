"""The converter's second name leads to the one command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools/convert_checkpoint.py"


def test_it_is_the_convert_command(tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(TOOL), *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("--osum", "infer.pt", "--out", "o")
    assert done.returncode == 2 and "wenet_osum convert: error: --osum needs --llm" in done.stderr and not done.stdout

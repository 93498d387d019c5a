"""tools/run_commands.py: commands a line each, one status for all, nothing lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools/run_commands.py"


def told(lines: list[str], *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *options]
    text = "\n".join(lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def score_line(folder: Path, name: str, heard: str) -> str:
    """Score one utterance; the folders of references and answers have a space in their names."""
    (folder / "a b").mkdir(exist_ok=True)
    row = '{"key": "u", "wav": "u.wav", "txt": "one two", "lang": "en"}'
    (folder / "a b/ref").write_text(f"{row}\n")
    (folder / "a b" / name).write_text(f"u {heard}\n")
    where = f'--ref "{folder}/a b/ref" --hyp "{folder}/a b/{name}"'
    return f'score {where} --task asr --out "{folder}/a b/score {name}"'


def test_every_line_is_a_command_of_the_toolkit(tmp_path):
    lines = [score_line(tmp_path, name, "one two") for name in ("first", "second", "third")]
    done = told([*lines, ""], "--jobs", "2")
    assert done.returncode == 0, done.stderr
    for name in ("first", "second", "third"):
        assert (tmp_path / f"a b/score {name}/score.json").exists()


def test_one_that_fails_is_named_and_the_others_run(tmp_path):
    good = score_line(tmp_path, "good", "one two")
    missing = f"score --ref {tmp_path}/none --hyp x --task asr --out y"
    done = told([missing, "score --no_option", "scorr --out x", "score 'x", good])
    assert done.returncode == 1 and (tmp_path / "a b/score good/score.json").exists()
    assert "exit status 2 of: score --no_option" in done.stderr
    assert done.stderr.count("run_commands.py: exit status") == 2
    assert "unknown bin 'scorr', did you mean 'score'" in done.stderr and "No closing quotation" in done.stderr
    assert "Traceback" not in done.stderr

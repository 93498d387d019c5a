"""Every recipe has the same face; the root script finds recipes by their folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(p for p in (ROOT / "examples").iterdir() if p.is_dir())
STAGES = set(range(7))  # and -1 where something is downloaded


@pytest.fixture(params=RECIPES, ids=lambda p: p.name)
def recipe(request):
    return request.param


@pytest.mark.parametrize("name", ["run.sh", "path.sh", "conf", "local/prepare.py", "README.md", "RESULTS.md"])
def test_recipe_has(recipe, name):
    assert (recipe / name).exists(), f"examples/{recipe.name} lacks {name}"


def test_recipe_has_the_standard_stages(recipe):
    text = (recipe / "run.sh").read_text(encoding="utf-8")
    tested = {int(n) for n in re.findall(r"^if .*(?:-le|in_stages) (-?\d+)", text, re.MULTILINE)}
    assert STAGES <= tested <= STAGES | {-1}, f"stages {sorted(tested)}"
    announced = {int(n) for n in re.findall(r'echo "stage (-?\d+):', text)}
    assert announced == tested, "every stage says its number and what it does"


def stages_of(text: str) -> list[str]:
    """Return the text of each stage of a run.sh."""
    return re.findall(r"^if in_stages .*?^fi$", text, re.MULTILINE | re.DOTALL)


def commands_of(stage: str) -> list[str]:
    """Return the commands of a stage that do the work; a line that goes on belongs to the one before."""
    joined = stage.replace("\\\n", " ")
    return re.findall(r'(?<!\()(?:python|torchrun|bash) "?(?:\$|-m |--standalone)[^\n]*|^ *"\$\{ask\[@\].*', joined, re.MULTILINE)


def test_recipe_shows_its_commands(recipe):
    """So that it can be read, copied and changed without another file: few commands a stage, under a comment."""
    text = (recipe / "run.sh").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    counts = {stage.splitlines()[0]: len(commands_of(stage)) for stage in stages_of(text)}
    assert max(counts.values()) <= 3, counts
    assert "#" in "".join(stages_of(text)), "comments that teach"


def test_recipe_prints_what_wenet_s_tool_prints(recipe):
    text = (recipe / "run.sh").read_text(encoding="utf-8")
    assert "compute-wer.py" in stages_of(text)[-1] or recipe.name == "asrx", "asrx ends with a page about cells"


def test_what_recipes_share_is_little():
    assert len((ROOT / "tools/recipe.sh").read_text(encoding="utf-8").splitlines()) <= 60


def test_commands_of_a_stage_are_seen():
    stage = 'if in_stages 1; then\n  echo "stage 1: x"\n  python "$tools/a.py" b \\\n    c\n  torchrun --standalone d\nfi'
    assert len(commands_of(stage)) == 2 and stages_of(f"x\n{stage}\ny") == [stage]


def test_recipe_parses_its_options(recipe):
    done = subprocess.run(["bash", "run.sh", "--help"], cwd=recipe, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--stop_stage" in done.stdout, done.stderr
    done = subprocess.run(["bash", "run.sh", "--stagee", "1"], cwd=recipe, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "unknown option --stagee" in done.stderr


def test_recipe_keeps_no_copied_code(recipe):
    """What two recipes need lives in the package."""
    mine = {p.read_text(encoding="utf-8") for p in recipe.glob("local/*.py")}
    others = {p.read_text(encoding="utf-8") for other in RECIPES if other != recipe for p in other.glob("local/*.py")}
    assert not mine & others


@pytest.mark.parametrize("path", [p for p in sorted(ROOT.rglob("*.sh")) if ".venv" not in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_shell_script_is_valid(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_root_script_names_the_recipes():
    done = subprocess.run(["bash", "run.sh", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and all(r.name in done.stdout for r in RECIPES)


def test_root_script_refuses_unknown_recipe():
    done = subprocess.run(["bash", "run.sh", "--recipe", "tyo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "unknown recipe 'tyo'; known:" in done.stderr


def test_ci_runs_the_test_script_alone():
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["bash test/run.sh"]

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

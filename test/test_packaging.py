"""What pip installs: the base alone loads and decodes, the wheel holds all of the package and no more, the Dockerfile follows the README."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
DATA = (".py", ".yaml", ".html", ".css", ".js", ".txt")


def handed_to_setup(monkeypatch) -> dict:
    handed: dict = {}
    fake = types.ModuleType("setuptools")
    fake.setup, fake.find_namespace_packages = lambda **fields: handed.update(fields), lambda include: include
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(ROOT / "setup.py"))
    return handed


def folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that an installation of these brings, as installed here."""
    found, todo = set(), [Requirement(line) for line in requirements]
    while todo:
        wanted = todo.pop()
        extras = wanted.extras or {""}
        if folded(wanted.name) in found or (wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        try:
            rows = importlib.metadata.distribution(wanted.name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        found.add(folded(wanted.name))
        for line in rows:
            row = Requirement(line)
            if not row.marker or any(row.marker.evaluate({"extra": extra}) for extra in extras):
                row.marker = None
                todo.append(row)
    return found


def installation(names: set[str], target: Path) -> Path:
    """A folder to import from that holds these distributions alone, linked from where they are installed."""
    target.mkdir()
    for name in names:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        for top in tops:
            source, link = Path(distribution.locate_file(top)), target / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    return target


BASE_ONLY = """
import json, sys
import wenet_osum
folder, sound = sys.argv[1:]
answer = wenet_osum.load(folder, max_tokens=5)(sound, task="<EMOTION><TRANSCRIBE>")
from transformers import AutoModel, AutoProcessor
ids = AutoModel.from_pretrained(folder).generate(**AutoProcessor.from_pretrained(folder)(audio=sound, task="ser"), max_new_tokens=5)
print(json.dumps([answer.labels, len(ids[0])]))
import pytest
"""


@pytest.mark.slow
def test_base_requirements_alone_load_and_decode(tiny_folder, tmp_path, monkeypatch):
    from wenet_osum.dataset.audio import write_wav

    names = closure(handed_to_setup(monkeypatch)["install_requires"])
    assert {"torch", "transformers", "accelerate"} <= names and not {"pytest", "tensorboard", "jiwer", "gradio"} & names
    place = installation(names, tmp_path / "site")
    (tmp_path / "a.wav").write_bytes(write_wav(np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)))
    command = [sys.executable, "-S", "-c", BASE_ONLY, str(tiny_folder), str(tmp_path / "a.wav")]
    paths = {"PYTHONPATH": f"{place}:{ROOT}", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("No module named 'pytest'"), done.stderr[-2000:]  # the last line: extras really are out of reach
    labels, said = json.loads(done.stdout.splitlines()[-1])
    assert "emotion" in labels and said == 5


def copy_of_repository(target: Path) -> Path:
    target.mkdir()
    for name in ("setup.py", "requirements.txt", "README.md", "LICENSE", "MANIFEST.in", "wenet_osum", "test", "tools"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


def expected() -> set[str]:
    """Every file of the package, by its place in an installation."""
    return {str(p.relative_to(ROOT)) for p in (ROOT / "wenet_osum").rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_package_holds_only_kinds_of_files_that_are_installed():
    assert not [name for name in expected() if not name.endswith(DATA)], f"setup.py installs {DATA}; add the new kind to package_data there"


def test_build_takes_every_file_of_the_package_and_nothing_else(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    place = copy_of_repository(tmp_path / "repository")
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path / "b"), "--build-lib", str(tmp_path / "lib")]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    built = {str(p.relative_to(tmp_path / "lib")) for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    assert built == expected()


@pytest.mark.slow
def test_wheel_builds_without_network(tmp_path):
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("pip and setuptools are needed to build a wheel")
    version = tuple(map(int, importlib.metadata.version("setuptools").split(".")[:2]))
    if version < (70, 1) and importlib.util.find_spec("wheel") is None:
        pytest.skip(f"setuptools {version} needs the package wheel to build one, which is not installed")
    place = copy_of_repository(tmp_path / "repository")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("wenet_osum-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected()
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert {"train", "serve", "dev"} <= set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE))
    points = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "wenet_osum = wenet_osum.__main__:main" in points and any(name.endswith("LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata or "License: Apache-2.0" in metadata


def test_container_follows_the_two_commands_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.split("#")[0].strip() for line in text.split("```bash\n")[1].split("```")[0].splitlines()]
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert commands == ["bash run.sh", "bash test/run.sh"]
    assert json.loads(re.search(r"^CMD (\[.*\])$", recipe, re.MULTILINE)[1]) == commands[0].split()
    run = re.search(r"^RUN (bash .*)$", recipe, re.MULTILINE)[1]
    assert [" ".join(part.split()[:2]) for part in run.split(" && ")] == commands
    stages = [int(n) for n in re.findall(r"^\s*if in_stages (-?\d+)", (ROOT / "examples/toy/run.sh").read_text(), re.MULTILINE)]
    assert int(re.search(r"--stage (\d+)", run)[1]) > max(stages), "the image would run stages of the recipe while it is built"

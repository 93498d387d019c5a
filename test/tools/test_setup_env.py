"""The set-up script's decisions, without installing anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shell(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code after sourcing the script, outside any Python environment."""
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")}
    command = f'set -euo pipefail; . "{ROOT}/tools/setup_env.sh"; {code}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=kept | environment)


def program(folder: Path, name: str, code: str) -> None:
    """Put a fake program into a folder."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("environment", "active"),
    [
        ({}, False),
        ({"VIRTUAL_ENV": "/x"}, True),
        ({"CONDA_PREFIX": "/x", "CONDA_DEFAULT_ENV": "osum"}, True),
        ({"CONDA_PREFIX": "/x", "CONDA_DEFAULT_ENV": "base"}, False),
    ],
)
def test_active_environment_is_seen(environment, active):
    assert (shell("environment_is_active", **environment).returncode == 0) is active


def test_old_python_is_told(tmp_path):
    program(tmp_path, "old", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = shell(f'activate_environment "{tmp_path}"', PYTHON=str(tmp_path / "old"))
    assert done.returncode == 1 and "3.11 or newer is needed; found: Python 3.9.2" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_missing_venv_module_is_told(tmp_path):
    program(tmp_path, "bare", 'case "$*" in *venv*) mkdir -p "$4"; exit 1;; esac')
    done = shell(f'activate_environment "{tmp_path}"', PYTHON=str(tmp_path / "bare"))
    assert done.returncode == 1 and "apt-get install python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists(), "half an environment must not stay"


def fake_checkout(tmp_path: Path, pip: str) -> str:
    """A checkout and an environment whose pip runs ``pip``; gives the PATH that finds it."""
    (tmp_path / "requirements.txt").write_text("torch\n", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("", encoding="utf-8")
    program(tmp_path, "python", f'case "$1" in -c) echo "{tmp_path}";; *) echo run >> "{tmp_path}/runs"; {pip};; esac')
    return f"{tmp_path}:{os.environ['PATH']}"


def test_second_run_installs_nothing(tmp_path):
    path = fake_checkout(tmp_path, "echo Downloading torch.whl")
    install = f'install_requirements "{tmp_path}" requirements.txt'
    first, second = shell(install, PATH=path), shell(install, PATH=path)
    assert first.returncode == second.returncode == 0, first.stderr
    assert "fetch torch.whl" in first.stdout and second.stdout == ""
    (tmp_path / "requirements.txt").write_text("torch\nnumpy\n", encoding="utf-8")
    shell(install, PATH=path)
    assert (tmp_path / "runs").read_text().split() == ["run", "run"], "once, and again when the file changed"


def test_failed_install_leaves_no_stamp(tmp_path):
    path = fake_checkout(tmp_path, "echo no such wheel; exit 3")
    done = shell(f'install_requirements "{tmp_path}" requirements.txt', PATH=path)
    assert done.returncode == 1 and "no such wheel" in done.stderr
    assert not list(tmp_path.glob(".*.stamp"))


def test_a_disk_nearly_full_is_told_beforehand(tmp_path):
    path = fake_checkout(tmp_path, "echo Downloading torch.whl")
    program(tmp_path, "df", f'echo Filesystem; echo "/dev/x 9000 9000 $FREE 9% {tmp_path}"')
    install = f'install_requirements "{tmp_path}" requirements.txt'
    tight = shell(install, PATH=path, FREE="4500")
    assert tight.returncode == 0 and tight.stderr.startswith("Only 4500 MB are free on the disk of"), "pip is tried all the same"
    (tmp_path / "requirements.txt").write_text("numpy\n", encoding="utf-8")
    assert shell(install, PATH=path, FREE="9000").stderr == ""


@pytest.mark.parametrize(("driver", "build"), [("13.1", "cu130"), ("12.8", "cu128"), ("12.2", "cu126"), ("11.8", "")])
def test_old_driver_is_told_with_the_build_that_fits(tmp_path, driver, build):
    program(tmp_path, "nvidia-smi", f'echo "| NVIDIA-SMI 1   CUDA Version: {driver}  |"')
    program(tmp_path, "python", "exit 1")  # torch.cuda.is_available() is False
    done = shell("check_driver", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0 and "WITHOUT the card, on the CPU" in done.stderr
    assert (f"/{build}\"" in done.stderr) if build else ("update the driver" in done.stderr)


def test_no_card_is_silent(tmp_path):
    program(tmp_path, "nvidia-smi", "exit 9")
    done = shell("check_driver", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""What test/run.sh does for a browser, with an apt-get that only writes down what it is told."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOLD = "apt-get.txt"


@pytest.fixture
def install(tmp_path):
    """(more lines of bash, apt-get's exit status) → how install_browser ends."""

    def run(more: str = "", status: int = 0) -> subprocess.CompletedProcess:
        for name in ("mktemp", "tail", "rm", "timeout", "grep", "id"):
            (tmp_path / name).symlink_to(shutil.which(name))
        apt = tmp_path / "apt-get"
        bash = shutil.which("bash")
        told = tmp_path / TOLD
        apt.write_text(f'#!{bash}\necho "$@" >> "{told}"\necho no network >&2\nexit {status}\n')
        apt.chmod(0o755)
        lines = ["set -euo pipefail", f'. "{ROOT}/test/browser.sh"', "may_install() { true; }"]
        lines += [more, "install_browser", "echo went on"]
        environment = os.environ | {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
        command = [bash, "-c", "\n".join(lines)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_without_a_browser_chromium_is_installed_and_said_so(install, tmp_path):
    done = install()
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.startswith("installing chromium with apt-get")
    assert done.stdout.endswith("went on\n")
    update, packages = (tmp_path / TOLD).read_text().splitlines()
    assert update.endswith("update")
    assert packages.endswith("install --yes --no-install-recommends chromium")


def test_an_apt_get_that_fails_stops_nothing(install, tmp_path):
    done = install(status=100)
    assert done.returncode == 0 and done.stdout.endswith("went on\n")
    assert "will be skipped" in done.stderr and "no network" in done.stderr
    assert not [*tmp_path.glob("tmp*")], "its log is left behind"


def test_a_machine_that_is_not_ours_to_change_is_left_alone(install, tmp_path):
    done = install("may_install() { false; }")
    assert done.returncode == 0
    assert done.stdout.startswith("no browser: the tests of the page will be skipped")
    assert not (tmp_path / TOLD).exists()


def test_a_browser_that_is_there_is_enough(install, tmp_path):
    (tmp_path / "google-chrome").symlink_to(shutil.which("true"))
    assert install().stdout == "went on\n" and not (tmp_path / TOLD).exists()


def test_the_shell_and_the_tests_look_for_the_same_browsers():
    text = (ROOT / "test/browser.sh").read_text(encoding="utf-8")
    names = re.search(r'^BROWSERS="(.*)"', text, re.MULTILINE)[1].split()
    assert tuple(names) == runpy.run_path(str(ROOT / "tools/bench/serve_shot.py"))["BROWSERS"]
    assert "install_browser" in (ROOT / "test/run.sh").read_text(encoding="utf-8").splitlines()

"""Kaldi-style options of shell scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
stage=0
data_dir=
clean=false
name="a b"
help_message="Usage: how to"
. {root}/tools/parse_options.sh || exit 1
echo "$stage|$data_dir|$clean|$name|$*"
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.sh"
    path.write_text(SCRIPT.format(root=ROOT), encoding="utf-8")
    return lambda *options: subprocess.run(["bash", str(path), *options], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "0||false|a b|"),
        (["--stage", "-1", "--clean", "true"], "-1||true|a b|"),
        (["--stage=3", "--data_dir=x=y"], "3|x=y|false|a b|"),
        (["--data-dir", "/a b/$HOME *"], "0|/a b/$HOME *|false|a b|"),
        (["--data_dir", ""], "0||false|a b|"),
        (["--stage", "2", "file", "--clean"], "2||false|a b|file --clean"),
        (["--stage", "2", "--", "--clean"], "2||false|a b|--clean"),
    ],
)
def test_options_set_variables(script, options, line):
    done = script(*options)
    assert (done.returncode, done.stdout.rstrip("\n")) == (0, line), done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stagee", "1"], "unknown option --stagee"),
        (["--x;echo", "1"], "unknown option"),
        (["--stage"], "--stage needs a value"),
        (["--clean", "yes"], "--clean takes true or false, got 'yes'"),
        (["--stage", "three"], "--stage takes a whole number, got 'three'"),
        (["--stage", "3.0"], "--stage takes a whole number"),
    ],
)
def test_wrong_options_stop(script, options, message):
    done = script(*options)
    assert done.returncode == 1 and message in done.stderr and not done.stdout


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_prints_the_message(script, option):
    done = script("--stage", "1", option)
    assert (done.returncode, done.stdout) == (0, "Usage: how to\n")

"""The commands as a shell sees them: help with examples, exit statuses, streams. What the front door lists is tested in test_setup.py."""

from __future__ import annotations

import ast
import importlib
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from wenet_osum import __main__ as door
from wenet_osum import __version__, lookup

ROOT = Path(__file__).resolve().parents[1]
NAMES = lookup.names(door.COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_command_has_main_and_a_docstring_with_examples_and_statuses(name):
    tree = ast.parse((ROOT / f"wenet_osum/bin/{name}.py").read_text(encoding="utf-8"))
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert mains and [arg.arg for arg in mains[0].args.args] == ["argv"], "main(argv) runs the command"
    text = ast.get_docstring(tree)
    assert len(text.split("\n")[0]) <= 130 and f"wenet_osum {name} " in text and re.search("exit status", text, re.IGNORECASE)


@pytest.mark.parametrize("name", NAMES)
def test_examples_use_options_that_exist(name, capsys):
    command = importlib.import_module(f"{door.COMMANDS}.{name}")
    with pytest.raises(SystemExit) as leaving:
        command.main(["--help"])
    shown = capsys.readouterr().out
    shown = shown.replace("\\\n", "")
    options = set(re.findall(r"^  (?:-\w, )?(--\w+)", shown, re.MULTILINE))
    examples = re.findall(rf"wenet_osum[ .](?:bin\.)?{name} .*", shown.split("positional arguments:")[0].split("\noptions:")[0])
    used = {flag for line in examples for flag in re.findall(r"(?<!\S)--\w+", line)}
    assert leaving.value.code == 0 and shown.startswith("usage: ") and examples and used <= options, used - options


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "wenet_osum", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_is_an_answer_and_no_command_a_fault(capsys):
    assert door.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert door.main([]) == 2
    nothing = capsys.readouterr()
    assert shown.out == nothing.err and not shown.err and not nothing.out
    text = " ".join(shown.out.split())
    assert all(word in text for word in ("usage: wenet_osum", "0 done, 1 some input failed, 2 a fault", "wenet_osum transcribe --model"))
    assert door.main(["--version"]) == 0 and capsys.readouterr().out.strip() == __version__


def test_unknown_command_gets_a_suggestion(capsys):
    assert door.main(["transcibe"]) == 2
    assert "unknown command 'transcibe', did you mean 'transcribe'?" in capsys.readouterr().err
    for hidden in ("_exit", "__init__", "../tools"):
        assert door.main([hidden]) == 2 and "unknown command" in capsys.readouterr().err


def door_with(folder: Path, calls: str) -> list[str]:
    """A command line that runs ``calls`` with the commands of a folder added."""
    code = f"import sys; from wenet_osum import lookup, __main__ as door; lookup.add_folder(door.COMMANDS, {str(folder)!r}); {calls}"
    return [sys.executable, "-c", code]


def test_only_the_command_s_own_module_is_imported(tmp_path):
    shown = 'print(sorted(m for m in sys.modules if m.startswith(("wenet_osum", "torch"))))'
    (tmp_path / "mine.py").write_text(f'"""Mine."""\nimport sys\n{shown}\nsys.exit(7)\n')
    (tmp_path / "broken.py").write_text('"""Broken, but listed."""\nraise ImportError\n')
    command = door_with(tmp_path, "print(door.usage()); door.main(['mine'])")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "['wenet_osum', 'wenet_osum.__main__', 'wenet_osum.bin', 'wenet_osum.lookup']"
    assert any(re.fullmatch(r"  broken +Broken, but listed\.", line) for line in lines)


def test_faults_of_arguments_leave_stdout_empty():
    done = run("average", "--num", "many")
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("usage: wenet_osum average")


def test_ctrl_c_ends_with_a_sentence(tmp_path):
    (tmp_path / "wait.py").write_text('"""Waits."""\nimport time\nprint("waiting", flush=True)\ntime.sleep(60)\n')
    command = door_with(tmp_path, "sys.exit(door.main(['wait']))")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background, maybe these tests, is deaf to SIGINT
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "wenet_osum wait: interrupted\n" and process.returncode == 130


def test_a_checkout_has_the_command_too(tmp_path):
    """path.sh brings it where no package is installed; the interpreter is that of this environment."""
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "VIRTUAL_ENV": sys.prefix}
    line = f". {ROOT}/path.sh; wenet_osum --version"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == __version__, done.stderr

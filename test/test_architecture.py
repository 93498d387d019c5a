"""The shape of the source: who imports whom, sizes, thin tools, nothing of one machine."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wenet_osum"
ROOMS = [
    "devices", "words", "turns", "records", "context", "files", "lock", "progress", "config", "typed", "lookup", "migrate", "tasks", "score", "metrics", "text", "corpus", "dataset", "models", "dist", "decode", "train", "small",
    "report", "hub", "serve", "bin",
]  # fmt: skip
CORE = [room for room in ROOMS if room not in ("small", "serve", "bin")]  # what published models need
FREE_EDGES = {("config", "lookup"), ("config", "typed"), ("typed", "lookup")}  # the pages at the start are on one level
APART = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "requirements").glob("*.txt")) if not path.stem.startswith("constraints")]
ELSEWHERE = {"wenet_osum.hub.vllm.model"}  # its bases are vLLM's, which is not installed beside this torch
FOLDERS = ["wenet_osum", "tools", "examples", "test", "docs"]
MADE_BY_RUNS = {"data", "exp", "downloads", "leave_out", "__pycache__", ".venv"}


def files(*suffixes: str) -> list[Path]:
    """Our source files; not what recipes wrote beside them."""
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in suffixes and p.is_file()]
    found += [p for p in ROOT.iterdir() if p.suffix in suffixes and p.is_file()]
    recipes = ROOT / "examples"
    return sorted(p for p in found if not (recipes in p.parents and MADE_BY_RUNS & set(p.parts)) and "__pycache__" not in p.parts)


def module_of(path: Path) -> str:
    """Dotted name of a package file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of everything a file imports, inside functions too, with the line."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{name}.{alias.name}", node.lineno) for alias in node.names)


def room(name: str) -> str | None:
    """The room of a dotted module name; None outside the package and for its front door."""
    parts = name.split(".")
    return parts[1] if parts[0] == "wenet_osum" and len(parts) > 1 and parts[1] in ROOMS else None


def test_every_module_has_a_room():
    tops = {p.stem for p in PACKAGE.iterdir() if (p.suffix == ".py" or p.is_dir()) and not p.name.startswith("__")}
    assert tops <= set(ROOMS), f"no room for {tops - set(ROOMS)}; DESIGN names the rooms and their order"


def test_every_folder_is_a_regular_package():
    """lookup.add_folder cannot add to the path of a folder without __init__.py."""
    bare = {p.parent for p in PACKAGE.rglob("*.py") if not (p.parent / "__init__.py").exists()}
    assert not bare, f"__init__.py is missing in {sorted(str(p.relative_to(ROOT)) for p in bare)}"


def test_imports_follow_the_arrow():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = room(module_of(path))
        if here is None:
            continue
        for name, line in imported(path):
            there = room(name)
            if there and ROOMS.index(there) > ROOMS.index(here) and (here, there) not in FREE_EDGES:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}: {there} comes after {here}")
    assert not wrong, "\n".join(wrong)


def import_graph() -> dict[str, set[str]]:
    """Return the files of the package that each of them imports, inside functions too."""
    names = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = {}
    for name, path in names.items():
        graph[name] = set()
        for target, _ in imported(path):
            # ``from a import b``: b is a file of a, or a name in it.
            target = target if target in names else target.rpartition(".")[0]
            if target in names and target != name:
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the largest groups of names that all reach each other."""
    reached = {name: reachable(graph, name) for name in graph}
    found = set()
    for name, there in reached.items():
        group = {other for other in there if name in reached[other]}
        if len(group) > 1:
            found.add(frozenset(group))
    return found


def reachable(graph: dict[str, set[str]], name: str) -> set[str]:
    """Return what can be reached from a name, itself only through others."""
    found, waiting = set(), [name]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_no_two_files_import_each_other_in_a_circle():
    """Imports for hints alone count, and those inside functions: what needs them is no less tied."""
    found = [sorted(group) for group in circles(import_graph())]
    assert not found, f"what both need belongs in one of them or in a third: {found}"


def test_a_circle_is_seen(tmp_path, monkeypatch):
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}
    assert circles(graph) == {frozenset("abc")}

    package = tmp_path / "wenet_osum"
    package.mkdir()
    (package / "a.py").write_text("if TYPE_CHECKING:\n    from wenet_osum.b import B\n")
    (package / "b.py").write_text("def f():\n    from wenet_osum import a\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", package)
    assert circles(import_graph()) == {frozenset({"wenet_osum.a", "wenet_osum.b"})}


def test_the_core_knows_nothing_of_small_models():
    """It imports none of them, and names none of their plug-ins: a yaml or a command line does."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if room(module_of(path)) in CORE:
            wrong += [f"{path.relative_to(ROOT)}:{line} imports {name}" for name, line in imported(path) if room(name) == "small"]
    assert not wrong, "\n".join(wrong)
    done = run_blocked(["wenet_osum.small"], "\n".join(f"import {name}" for name in modules(*CORE)))
    assert done.returncode == 0, done.stderr


def test_labels_and_times_of_small_models_are_no_matter_of_the_core():
    rooms = ["records", "config", "dataset", "text", "decode", "bin"]
    files_of = [p for p in PACKAGE.rglob("*.py") if room(module_of(p)) in rooms]
    wrong = [f"{p.relative_to(ROOT)}: {m[0]}" for p in files_of if (m := re.search(r"\w*(?<![a-z])tones?(?![a-z])\w*", p.read_text(encoding="utf-8")))]
    assert not wrong, "\n".join(wrong)


def run_blocked(blocked: list[str], code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter where importing any of ``blocked`` fails."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, check=False)


def modules(*rooms: str) -> list[str]:
    return sorted(module_of(p) for p in PACKAGE.rglob("*.py") if room(module_of(p)) in rooms and module_of(p) not in ELSEWHERE)


def test_records_tasks_score_and_report_work_without_torch():
    names = modules("words", "turns", "context", "records", "config", "typed", "lookup", "tasks", "score", "metrics", "report")
    code = "\n".join(f"import {name}" for name in names)
    done = run_blocked(["torch", "torchaudio", "transformers"], code)
    assert done.returncode == 0, done.stderr


def test_commands_tell_their_options_without_transformers():
    """It takes seconds to import, which --help would wait for."""
    done = run_blocked(["transformers", "peft"], "import wenet_osum.decode.options")
    assert done.returncode == 0, done.stderr


def sections(path: str) -> dict[str, list[str]]:
    """Distribution names of a requirements file by its [extra] headings."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"# \[(\w+)\]", line):
            found[heading[1]] = names = []
        elif line and not line.startswith("#"):
            names.append(re.match(r"[\w-]+", line)[0].lower())
    return found


def apart() -> set[str]:
    """Distribution names of what is no part of the default install: the files of requirements/."""
    return {line.split("=")[0].split(">")[0].strip().lower() for path in APART for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")}


def distributions() -> dict[str, set[str]]:
    """Top-level import name → names of the distributions it comes from."""
    return {name: {d.lower().replace("_", "-") for d in dists} for name, dists in importlib.metadata.packages_distributions().items()}


def test_loading_and_decoding_need_the_base_alone():
    extras = {name for extra, names in sections("requirements.txt").items() if extra != "base" for name in names} | apart()
    blocked = [top for top, dists in distributions().items() if dists & extras and not dists - extras]
    code = "\n".join(f"import {name}" for name in modules("tasks", "text", "dataset", "models", "decode", "report", "hub"))
    done = run_blocked(blocked, code)
    assert done.returncode == 0, done.stderr


def test_what_is_not_in_the_default_install_is_in_no_extra_of_it():
    """Vast or of other builds of torch: each of requirements/ is installed by hand where it is wanted."""
    stated = {name for path in ("requirements.txt", "test/requirements.txt") for names in sections(path).values() for name in names}
    assert apart() and not apart() & stated


def test_every_import_is_a_stated_requirement():
    stated = {name for names in sections("requirements.txt").values() for name in names} | apart()
    known, wrong = distributions(), set()
    # Not installed here, so its names are not known: modules are called as their distributions.
    known |= {name.replace("-", "_"): {name} for name in apart()}
    for path in [*PACKAGE.rglob("*.py"), *(p for p in files(".py") if "examples" in p.parts and "test" not in p.parts)]:
        own = {p.stem for p in path.parent.glob("*.py")}
        for name, line in imported(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in own | {"wenet_osum", "__future__"}:
                continue
            if not known.get(top, set()) & stated:
                wrong.add(f"{path.relative_to(ROOT)}:{line} imports {top}, which requirements.txt does not name")
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("path", ["requirements.txt", "test/requirements.txt", *APART])
def test_every_requirement_is_bounded_and_explained(path):
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            bounded = re.match(r"[\w-]+(==[\d.]+\.\*|>=[\d.]+,<[\d.]+) +# \S", line)
            assert bounded, f"{line!r} needs a lower and an upper bound and a reason"


def test_constraints_pin_every_requirement():
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line}
    stated = {name for path in ("requirements.txt", "test/requirements.txt") for names in sections(path).values() for name in names}
    assert stated <= pinned, f"constraints.txt lacks {stated - pinned}"
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "requirements").glob("constraints*.txt")]
    pinned = {line.split("==")[0].lower() for text in texts for line in text.splitlines() if "==" in line}
    assert apart() == pinned, "requirements/constraints*.txt hold the sets that were tested of requirements/"


def test_files_and_functions_are_small():
    wrong = []
    for path in files(".py"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            wrong.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines, at most 400")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 60:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines, at most 60")
    assert not wrong, "\n".join(wrong)


def test_tools_are_thin():
    """Counted in statements, of which a parser takes many: a tool reads, calls, writes and tells."""
    wrong = []
    for path in (ROOT / "tools").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        size = sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
        if size > 100:
            wrong.append(f"{path.name}: {size} statements, at most 100")
    assert not wrong, f"the work belongs into wenet_osum, a tool only calls it: {wrong}"


def test_nothing_is_of_one_machine():
    places = re.compile(r"(?<![\w.])/(?:home|root|work|Users|mnt|opt)/\w")
    wrong = []
    for path in files(".py", ".sh", ".yaml", ".md", ".txt", ".ini"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if places.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_undone():
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "Not" + "ImplementedError", r"\bX" + "XX\\b"]))
    wrong = [f"{p.relative_to(ROOT)}: {m[0]}" for p in files(".py", ".sh", ".yaml") if (m := marks.search(p.read_text(encoding="utf-8")))]
    assert not wrong, "\n".join(wrong)

"""What the files of unfolded rooms are held to, so that they can be read aloud.

A line holds one idea: few expressions a line, no comprehension inside another, functions that say
little, nothing beyond 100 columns. Measured over the syntax tree, docstrings left out. ``UNFOLDED``
names rooms and files that are there; the others follow, and nothing leaves the list. Tools,
benchmarks and what recipes keep in ``local/`` are held to the same.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wenet_osum"
UNFOLDED = [
    "__init__.py",
    "__main__.py",
    "bin",
    "config",
    "context.py",
    "corpus",
    "dataset",
    "decode",
    "files.py",
    "hub",
    "lookup.py",
    "metrics",
    "migrate.py",
    "models",
    "progress.py",
    "records.py",
    "report",
    "score",
    "serve",
    "small",
    "tasks",
    "text",
    "train",
    "turns.py",
    "words.py",
    "typed.py",
]
OUTSIDE = ["tools/*.py", "tools/bench/*.py", "examples/*/local/*.py"]
WIDTH = 100  # columns
NODES = 5.0  # expressions a line of a function, mean over a file
STATEMENTS = 20  # of a function, nine tenths of them
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def unfolded() -> list[Path]:
    """Return the files of the lists."""
    found = []
    for name in UNFOLDED:
        path = PACKAGE / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    for pattern in OUTSIDE:
        found += sorted(ROOT.glob(pattern))
    return found


def in_root(path: Path) -> str:
    """Return a path as it is named from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


FILES = unfolded()
IDS = [in_root(path) for path in FILES]


def functions(path: Path) -> list[ast.FunctionDef]:
    """Return the functions of a file that are in no other function."""
    found, waiting = [], list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FUNCTIONS):
            found.append(node)
        elif isinstance(node, ast.ClassDef):
            waiting += node.body
    return found


def without_docstring(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return the statements of a function's body after its docstring."""
    return function.body[1:] if ast.get_docstring(function) else function.body


def nodes_and_lines(function: ast.FunctionDef) -> tuple[int, int]:
    """Count the expressions in a function's body and the lines they stand on."""
    body = without_docstring(function)
    nodes = sum(isinstance(node, ast.expr) for part in body for node in ast.walk(part))
    return nodes, (body[-1].end_lineno - body[0].lineno + 1) if body else 0


def statements(function: ast.FunctionDef) -> int:
    """Count the statements of a function, those of its blocks included."""
    inside = [node for part in without_docstring(function) for node in ast.walk(part)]
    return sum(isinstance(node, ast.stmt) for node in inside)


def nested_comprehensions(tree: ast.AST) -> list[int]:
    """Return the lines on which a comprehension holds another."""
    outer = [node for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS)]
    inner = [n for node in outer for n in ast.walk(node) if n is not node]
    return sorted({node.lineno for node in inner if isinstance(node, COMPREHENSIONS)})


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_line_holds_one_idea(path):
    counts = [nodes_and_lines(function) for function in functions(path)]
    nodes, lines = sum(n for n, _ in counts), sum(n for _, n in counts)
    assert nodes <= NODES * lines, f"{nodes / lines:.1f} expressions a line, at most {NODES:g}"
    assert not nested_comprehensions(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_lines_fit_and_functions_say_little(path):
    text = path.read_text(encoding="utf-8")
    long = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > WIDTH]
    assert not long, f"lines beyond {WIDTH} columns: {long}"
    sizes = sorted(statements(function) for function in functions(path))
    large = sum(size > STATEMENTS for size in sizes)
    assert large <= max(1, len(sizes) // 10), (
        f"{large} of {len(sizes)} functions have over {STATEMENTS} statements"
    )


def self_attributes(node: ast.AST) -> set[str]:
    """Return the names that are assigned on ``self`` anywhere below ``node``."""
    found = set()
    for part in ast.walk(node):
        stored = isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
        if stored and isinstance(part.value, ast.Name) and part.value.id == "self":
            found.add(part.attr)
    return found


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_attributes_are_born_in_init(path):
    """So that what an object holds can be read in one place."""
    late = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        born = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
        for method in (part for part in node.body if isinstance(part, FUNCTIONS)):
            if method.name in ("__init__", "__post_init__"):
                born |= self_attributes(method)
        late += [f"{node.name}.{name}" for name in sorted(self_attributes(node) - born)]
    assert not late, f"assigned outside __init__: {late}"


def test_the_share_of_comments_is_told(capsys):
    """Not a bar, so that nobody writes filler: printed with ``pytest -s``."""
    for room in sorted(path for path in PACKAGE.iterdir() if path.is_dir()):
        lines = [
            line.strip() for path in room.rglob("*.py") for line in path.open(encoding="utf-8")
        ]
        code = [line for line in lines if line]
        if code:
            own = sum(line.startswith("#") for line in code)
            print(f"{room.name}: {100 * own / len(code):.1f} comment lines per 100")
    assert "models: " in capsys.readouterr().out


def test_the_measures_see_what_they_are_for(tmp_path):
    folded = tmp_path / "folded.py"
    folded.write_text(
        "def f(a):\n    return [[x * 2 for x in row if x > 1] for row in a if row[0] + 1]\n"
    )
    [function] = functions(folded)
    nodes, lines = nodes_and_lines(function)
    assert nodes > NODES * lines and statements(function) == 1
    assert nested_comprehensions(ast.parse(folded.read_text())) == [2]

"""The pages do what they say: links lead somewhere, commands parse, yaml and JSON are accepted, Python runs on a tiny model."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import yaml

from wenet_osum import config, lookup, tasks
from wenet_osum.dataset.manifest import parse_line

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
OUTSIDE = {"pip", "docker", "hf", "vllm", "tensorboard", "curl", "ffmpeg", "export", "cd", "tar"}  # programs that are not ours
TORCHRUN = {"--standalone", "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_id"}  # its options that our pages use


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end with."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


ALL_PAGES = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "examples").glob("*/*.md"))]


@pytest.mark.parametrize("page", ALL_PAGES, ids=[str(page.relative_to(ROOT)) for page in ALL_PAGES])
def test_every_fence_is_closed(page):
    fences = re.findall(r"^\s*```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0 and not any(fences[1::2]), fences


def lost_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere; those to other machines are not followed."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https://[\w.-]+/\S*$", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        known = place.exists() and place.is_relative_to(ROOT) and (not anchor or anchor in anchors(place))
        lost += [] if known else [target]
    return lost


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    assert not lost_links(page)


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        todo += [place for link in links if not link.startswith("http") and (place := (page.parent / link).resolve()).exists()]
    assert set(PAGES) <= reached, f"no way from README.md to {[p.name for p in set(PAGES) - reached]}"


def test_the_index_names_every_page_once():
    rows = re.findall(r"^\| \[[^]]+\]\((\S+)\)", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md")


def test_results_name_files_that_are_there():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:wenet_osum|tools|test|examples)/[\w./-]+)`", text)
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_every_picture_is_shown_on_a_page():
    shown = {(page.parent / name).resolve() for page in PAGES for name in re.findall(r"!\[[^]]+\]\((\S+\.png)\)", page.read_text(encoding="utf-8"))}
    assert shown == {place.resolve() for place in (ROOT / "docs").glob("*.png")}


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the page's bash blocks; what is piped into another is two commands."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for word in words:
                if not found or word in ("|", "&&", ";"):
                    found.append([])
                if word not in ("|", "&&", ";"):
                    found[-1].append(word)
            found.append([])
    return [words for words in found if words]


class Parsed(Exception):
    """Raised when a command's arguments were accepted, before it does anything."""


@pytest.fixture
def dry(monkeypatch):
    """Run a module's main(argv) up to the point where its arguments are accepted."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(path: Path, arguments: list[str]) -> None:
        spec = importlib.util.spec_from_file_location(f"dry_{path.stem.replace('-', '_')}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        with pytest.raises(Parsed):
            module.main(arguments)

    return run


def check(words: list[str], dry) -> None:
    """Fail unless the command exists and takes its arguments."""
    words = [word for word in words if word not in ("<", ">")]
    words = without_variables(words)
    if not words:
        return
    program, rest = words[0], words[1:]
    if program == "torchrun":
        place = rest.index("-m")
        assert {word for word in rest[:place] if word.startswith("-")} <= TORCHRUN, f"unknown options of torchrun in {' '.join(rest[:place])}"
        program, rest = "python", rest[place:]
    if program == "python" and rest[0] == "-m":
        parts = rest[1].split(".")
        assert parts[0] == "wenet_osum" and parts[1:2] in ([], ["bin"]), f"{rest[1]} is no module of ours"
        program, rest = "wenet_osum", [*parts[2:], *rest[2:]]
    if program == "wenet_osum" and rest[0] not in ("--help", "--version"):
        assert rest[0] in lookup.names("wenet_osum.bin"), f"no command {rest[0]}"
        dry(ROOT / f"wenet_osum/bin/{rest[0]}.py", without_redirection(rest[1:]))
    elif program == "python":
        dry(ROOT / rest[0], rest[1:])
    elif program == "bash":
        check_script(rest[0], rest[1:])
    elif program == ".":
        assert (ROOT / rest[0]).exists(), f"{rest[0]} is not there"
    else:
        assert program in OUTSIDE | {"wenet_osum"}, f"{program} is neither ours nor a known program"


def without_variables(words: list[str]) -> list[str]:
    """Leave out variables that are set before a command, or by themselves."""
    set_here = list(takewhile(lambda word: re.match(r"\w+=", word), words))
    return words[len(set_here) :]


def without_redirection(words: list[str]) -> list[str]:
    return words[: words.index(">")] if ">" in words else words


def check_script(path: str, options: list[str]) -> None:
    """Options of run.sh are its own, or variables of the recipe's; test/run.sh hands all to pytest."""
    assert (ROOT / path).exists(), f"{path} is not there"
    if path != "run.sh":
        return
    recipe = options[options.index("--recipe") + 1] if "--recipe" in options else "toy"
    known = re.findall(r"^(\w+)=", (ROOT / f"examples/{recipe}/run.sh").read_text(encoding="utf-8"), re.MULTILINE)
    for option in (word for word in options if word.startswith("--")):
        assert option[2:] in [*known, "recipe", "help"], f"the recipe {recipe} has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist_and_take_their_arguments(page, dry):
    for words in commands(page):
        check(words, dry)
        for word in words:
            if re.match(r"(examples|tools|test|wenet_osum)/", word):
                assert (ROOT / word).exists(), f"{word} is not there"


def test_bad_commands_are_noticed(dry):
    for line in ("wenet_osum recognize", "wenet_osum transcribe --models x a.wav", "python tools/make_shard_list.py --fast a b", "bash run.sh --quick 1"):
        with pytest.raises((AssertionError, SystemExit)):
            check(shlex.split(line), dry)
    with pytest.raises(AssertionError, match="neither ours"):
        check(["wenet_osumm"], dry)


def test_lost_links_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# A heading, here\n")
    (tmp_path / "a.md").write_text("[x](c.md) [y](b.md#nowhere) [z](b.md#a-heading-here) [s](https://a.b/c) [o](../up.md)")
    assert lost_links(tmp_path / "a.md") == ["c.md", "b.md#nowhere", "../up.md"]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_json_and_yaml_are_what_the_toolkit_reads(page):
    for block in blocks(page, "json"):
        for line in block.splitlines():
            assert not parse_line(line.encode()).extra, f"unknown fields in {line}"
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        tree.pop("base", None)  # which lies beside the page's reader, not beside the page
        config.from_dict(tree, config.DataConfig if "train" in tree else config.TrainConfig)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_runs_on_a_tiny_model(page, tiny_folder, tmp_path, monkeypatch):
    import soundfile

    from wenet_osum.decode import stops

    monkeypatch.setattr(stops, "TOKENS_PER_S", 0)  # a random model says nothing worth waiting for
    monkeypatch.chdir(tmp_path)
    for phase in ("3_joint", "4_lora"):
        (tmp_path / "exp" / phase).mkdir(parents=True)
        (tmp_path / "exp" / phase / "final").symlink_to(tiny_folder)
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write("a.wav", noise, 16000)
    soundfile.write("b.flac", noise, 16000)
    for block in blocks(page, "python"):
        made = {"__name__": page.stem}
        exec(compile(block, str(page), "exec"), made)
        assert made.keys() - {"__name__", "__builtins__"}, f"this block of {page.name} leaves nothing behind:\n{block}"


def test_page_of_licenses_shows_the_whole_table():
    from wenet_osum.hub.licenses import table

    text = (ROOT / "docs/licenses.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!name|-)(.*) \|$", text, re.MULTILINE)
    assert rows == [f"{row.name} | {row.kind} | {row.license} | <{row.source}>" for row in table()]


def test_page_of_tasks_shows_the_labels_of_every_field():
    text = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    shown = {}
    for name, labels in re.findall(r"^\| (\w+) \| ([^|]+) \|$", text[text.index("## Labels") :], re.MULTILINE):
        without_notes = re.sub(r" \([^)]*\)|;.*", "", labels)
        shown[name] = without_notes.split(", ")
    usual = [field for name in tasks.default_names() for field in tasks.parse(name).label_fields]
    shown.pop("field")
    assert shown == {field.name: [*field.labels.names] for field in usual}


BRITISH = re.compile(
    r"recognis|normalis|quantis|tokenis|initialis|synthesise|penalis|licence|colour|neighbour|favour\b|behaviour"
    r"|\bcentre|labelled|modelling|programme\b|\bspelt|learnt|catalogue",
    re.IGNORECASE,
)
# What others named, and what tells of names of before.
KEPT = {"CHANGELOG.md": "licence", "test/test_docs.py": "", "wenet_osum/bin/export.py": "--licence"}


def test_spelling_is_american_everywhere():
    found = []
    for path in text_files():
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if BRITISH.search(line) and KEPT.get(name, "\n") not in line and "LICENCE.txt" not in line:
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def text_files() -> list[Path]:
    """Return our own texts: code, pages, confs and scripts."""
    folders = [ROOT / name for name in ("wenet_osum", "tools", "docs", "test", "examples")]
    inside = (path for folder in folders for path in folder.rglob("*"))
    made = {"data", "exp", "downloads", "__pycache__", "saved_by_5478401"}
    wanted = {".py", ".md", ".sh", ".yaml", ".html"}
    files = [p for p in inside if p.suffix in wanted and not made & set(p.relative_to(ROOT).parts)]
    return [*files, *ROOT.glob("*.md"), *ROOT.glob("*.sh")]

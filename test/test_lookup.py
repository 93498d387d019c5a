"""A name in yaml is a file name; an unknown one is answered with a suggestion."""

from __future__ import annotations

import importlib
import sys

import pytest

from wenet_osum import lookup, typed


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three plug-ins, one of them private."""
    folder = tmp_path / "plugins_of_test"
    folder.mkdir()
    for name in ("__init__", "linear", "conv", "_shared"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield "plugins_of_test"
    for name in [m for m in sys.modules if m.split(".")[0] == "plugins_of_test"]:
        del sys.modules[name]


def test_names_are_the_public_files(package):
    assert lookup.names(package) == ["conv", "linear"]


def test_load_imports_the_file(package):
    assert lookup.load(package, "conv").NAME == "conv"


def test_unknown_name_gets_a_suggestion(package):
    with pytest.raises(ValueError, match=r"unknown plugins_of_test 'linaer', did you mean 'linear'\? known: conv, linear"):
        lookup.load(package, "linaer")


def test_private_file_is_not_a_plug_in(package):
    with pytest.raises(ValueError, match="known: conv, linear"):
        lookup.load(package, "_shared")


def test_nothing_close_gives_no_suggestion():
    assert lookup.unknown("task", "xyz", ["asr", "ser"]) == "unknown task 'xyz'; known: asr, ser"


def test_a_users_folder_adds_plug_ins(package, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "attention.py").write_text("NAME = 'mine'\n", encoding="utf-8")
    lookup.add_folder(package, mine)
    lookup.add_folder(package, str(mine))
    assert lookup.names(package) == ["attention", "conv", "linear"]
    assert lookup.load(package, "attention").NAME == "mine"


def test_plugins_are_packages_that_add_their_folders(package, tmp_path, monkeypatch):
    mine = tmp_path / "mine_of_test"
    (mine / "more").mkdir(parents=True)
    (mine / "more" / "wide.py").write_text("NAME = 'wide'\n", encoding="utf-8")
    (mine / "__init__.py").write_text(f"from wenet_osum import lookup\nlookup.add_folder({package!r}, {str(mine / 'more')!r})\n", encoding="utf-8")
    importlib.invalidate_caches()
    lookup.add_plugins(["mine_of_test"])
    assert lookup.names(package) == ["conv", "linear", "wide"] and lookup.load(package, "wide").NAME == "wide"
    del sys.modules["mine_of_test"]
    with pytest.raises(ValueError, match="plugins 'mine_of_tset': No module named .*PYTHONPATH"):
        lookup.add_plugins(["mine_of_tset"])


def test_names_that_are_gone_are_gone_and_say_what_to_write():
    """Keys by their dotted names in the tables of a run or of small models, options without their dashes."""
    from wenet_osum import config
    from wenet_osum.decode.options import DecodeOptions
    from wenet_osum.small.models import SmallModels

    for dotted, now in lookup.renamed("keys").items():
        assert now.startswith("write "), dotted
        for table in (config.TrainConfig, config.DataConfig, SmallModels):
            faults: list[str] = []
            tree = None
            for name in reversed(dotted.split(".")):
                tree = {name: tree}
            typed.build(table, tree, "", faults)
            assert any("key" in fault for fault in faults), f"{dotted} is a key of {table.__name__}"
    for option, now in lookup.renamed("options").items():
        assert now.startswith("write ") and option not in DecodeOptions.__dataclass_fields__


def test_score_and_export_take_plugins(tmp_path, capsys):
    from wenet_osum.bin import export, score

    files = ["--ref", "a", "--hyp", "b", "--task", "asr", "--out", str(tmp_path / "o")]
    assert score.main([*files, "--plugins", "mine_of_tset"]) == 1
    assert export.main(["--model", "a", "--out", str(tmp_path / "o"), "--plugins", "mine_of_tset"]) == 1
    assert capsys.readouterr().err.count("plugins 'mine_of_tset': No module named") == 2

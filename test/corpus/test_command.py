"""The command line that recipes' preparations share."""

from pathlib import Path

import pytest

from wenet_osum.corpus import command


def test_options_are_those_asked_for(capsys):
    full = command.parser("Digits → lists.\nMore.", "the folder", "stop unless complete").parse_args(["--data_dir", "x", "--strict_counts"])
    assert (full.data_dir, full.out, full.strict_counts) == (Path("x"), Path("data"), True)
    assert vars(command.parser(None).parse_args([])) == {"out": Path("data")}
    with pytest.raises(SystemExit):
        command.parser("Digits.", "the folder").parse_args([])
    assert "--data_dir" in capsys.readouterr().err


def test_a_fault_of_the_user_is_a_line_and_one_of_ours_is_not_hidden():
    def fails(error):
        raise error

    with pytest.raises(SystemExit, match="^error: no wav file; download it$"):
        command.run(fails, ValueError("no wav file; download it"))
    with pytest.raises(KeyError):
        command.run(fails, KeyError("ours"))

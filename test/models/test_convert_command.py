"""The arguments of ``convert``: what belongs together, and the exit status."""

from __future__ import annotations

import pytest

from wenet_osum.bin.convert import FITTING, main

CASES = [
    ([], "one of the arguments"),
    (["--osum", "a.pt", "--whisper_pt", "b.pt"], "not allowed with"),
    (["--osum", "a.pt"], "--osum needs --llm"),
    (["--osum", "a.pt", "--llm", "x", "--tokenizer", "y"], "--tokenizer cannot go with --osum"),
    (["--whisper_pt", "a.pt", "--llm", "x", "--lora_alpha", "2"], "--llm, --lora_alpha cannot go with --whisper_pt"),
    (["--to_wenet_pt", "a", "--heads", "2"], "--heads cannot go with --to_wenet_pt"),
    (["--whisper_pt", "a.pt", "--heads", "0"], "--heads 0 must be above 0"),
]


@pytest.mark.parametrize("arguments, said", CASES)
def test_arguments_that_do_not_belong_together(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_every_option_belongs_somewhere(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    named = set().union(*FITTING.values()) | FITTING.keys() | {"out"}
    options = {word.strip("[],|()").removeprefix("--") for word in shown.split("\n\n")[0].split() if word.strip("[],|()").startswith("--")}
    assert options == named


def test_a_fault_of_the_file_is_one_line_and_status_1(tmp_path, capsys):
    assert main(["--whisper_pt", str(tmp_path / "none.pt"), "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("convert: ") and shown.err.count("\n") == 1 and not shown.out

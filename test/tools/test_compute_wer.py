"""compute-wer.py and compute-acc.py: WeNet's output on WeNet's terms, and the cases WeNet gets wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wenet_osum.score import compute_acc, compute_wer
from wenet_osum.score.wenet_text import Cutter

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def wer(tmp_path, capsys):
    """Run compute-wer on two texts."""

    def run(ref: str | bytes, hyp: str | bytes, *flags: str, main=compute_wer.main) -> tuple[int, str, str]:
        for name, text in (("ref", ref), ("hyp", hyp)):
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        code = main([*flags, str(tmp_path / "ref"), str(tmp_path / "hyp")])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def overall(out: str) -> str:
    return re.search(r"^Overall -> (.*)$", out, re.MULTILINE)[1]


def test_output_to_the_letter(wer):
    _, out, _ = wer("u1 今天天气 ok\nu2 a b c d\n", "u2 a c d e\nu1 今天天汽 ok\n", "--char=1", "--v=1")
    assert out == (
        "\nutt: u1\nWER: 20.00 % N=5 C=4 S=1 D=0 I=0\nlab: 今 天 天 气 OK \nrec: 今 天 天 汽 OK \n\n"
        "\nutt: u2\nWER: 50.00 % N=4 C=3 S=0 D=1 I=1\nlab: A B C D   \nrec: A   C D E \n\n" + "=" * 75 + "\n\n"
        "Overall -> 33.33 % N=9 C=7 S=1 D=1 I=1\n"
        "English -> 40.00 % N=5 C=4 S=0 D=1 I=1\nMandarin -> 25.00 % N=4 C=3 S=1 D=0 I=0\n\n" + "=" * 75 + "\n"
    )


def test_quiet_output(wer):
    assert wer("a x y\n", "a x\n", "--v=0")[1] == "Overall -> 50.00 % N=2 C=1 S=0 D=1 I=0\n\n"


@pytest.mark.parametrize(
    ("flag", "rate"),
    [("--v=1", "100.00 % N=1"), ("--char=false", "100.00 % N=1"), ("--char=0", "100.00 % N=1"),
     ("--char=true", "25.00 % N=4"), ("--tochar=1", "25.00 % N=4")],
)
def test_char_switch(wer, flag, rate):
    assert overall(wer("a 今天很好\n", "a 今天真好\n", flag)[1]).startswith(rate)


def test_missing_is_deleted_or_skipped(wer):
    code, out, err = wer("a x y\nb z\n", "a x y\nq w\n")
    assert code == 0 and overall(out) == "33.33 % N=3 C=2 S=0 D=1 I=0"
    assert "1 of 2 references have no hypothesis, counted as deletions (first: b)" in err and "first: q" in err
    assert overall(wer("a x y\nb z\n", "a x y\n", "--missing=skip")[1]) == "0.00 % N=2 C=2 S=0 D=0 I=0"
    assert overall(wer("a x y\n", "")[1]) == "100.00 % N=2 C=0 S=0 D=2 I=0"


@pytest.mark.parametrize("char", ["--char=1", "--char=0"])
def test_tags_are_one_token_in_any_script(wer, char):
    ref, hyp = "a hi <throat clearing> <开心> <unk>\n", "a hi <sad> <开心> <unk>\n"
    assert overall(wer(ref, hyp, char)[1]) == "0.00 % N=1 C=1 S=0 D=0 I=0"
    assert overall(wer(ref, hyp, char, "--rt=0")[1]) == "25.00 % N=4 C=3 S=1 D=0 I=0"


def test_spaces_stand_in_the_tags_of_known_labels_alone(wer):
    """Without them a text is cut at its spaces, as WeNet cuts it."""
    assert Cutter([], remove_tags=False)("a<b a>b") == ["A<B", "A>B"] and Cutter([])("a<b a>b") == ["A", "A>B"]
    assert Cutter(["a<b a>b"], char=True, remove_tags=False)("a<b a>b") == ["A<B", "A>B"]
    for text in ("<Throat clearing>", "<throat_clearing>", "<female feminine>", "<middle-aged>"):
        for char in (True, False):
            assert Cutter([text], char, case=True, remove_tags=False)(text) == [text]
            assert Cutter([text], char)(f"x {text} y") == ["X", "Y"]
    assert Cutter([], remove_tags=False)("<no label>") == ["<NO", "LABEL>"]


def test_accents_and_keys_survive(wer):
    _, out, _ = wer("键-1.b café Ünï 你é e\u0301t\n", "键-1.b café Uni 你é e\u0301t\n", "--char=1")
    assert "utt: 键-1.b\n" in out
    assert overall(out) == "20.00 % N=5 C=4 S=1 D=0 I=0"


def test_case_ignored_words_and_splits(wer, tmp_path):
    assert overall(wer("a It IS\n", "a it is\n", "--cs=1")[1]).startswith("100.00")
    (tmp_path / "ig").write_text("uh\n")
    assert overall(wer("a uh yes\n", "a yes UH UH\n", f"--ig={tmp_path}/ig")[1]) == "0.00 % N=1 C=1 S=0 D=0 I=0"
    (tmp_path / "split").write_text("gonna going to\n")
    assert overall(wer("a gonna go\n", "a going to go\n", f"--splitfile={tmp_path}/split")[1]).startswith("0.00 % N=3")


def test_groups_and_line_width(wer, tmp_path):
    (tmp_path / "c").write_text("<Names> ANNA BOB </Names>")
    _, out, _ = wer("a anna met bob\n", "a anna met rob\n", f"--cluster={tmp_path}/c", "--maxw=2", "--padding-symbol=underline", "--v=2")
    assert "Names -> 50.00 % N=2 C=1 S=1 D=0 I=0" in out
    assert "lab(a): ANNA MET \nrec(a): ANNA MET \n\nlab(a): BOB \nrec(a): ROB \n" in out
    (tmp_path / "c").write_text("<Names> ANNA")
    assert wer("a b\n", "a b\n", f"--cluster={tmp_path}/c")[0] == 1


def test_punctuation_as_in_wenet():
    cut = Cutter(["你好，世界。 hello, it's 10% …x"], char=True)
    assert cut("你好，世界。 hello, it's 10% …x") == [*"你好世界", "HELLO,", "IT'S", "10%", "…X"]


def test_repeated_reordered_and_broken_files(wer):
    code, out, err = wer("a x\nb y\n", "b y\na x\na x\n")
    assert code == 0 and overall(out).startswith("0.00 % N=2") and "1 lines repeated" in err
    assert "stands twice with different text" in wer("a x\n", "a x\na y\n")[2]
    code, out, err = wer("a x\n", "a 你".encode("gb18030"))
    assert code == 1 and not out and "not UTF-8" in err
    assert overall(wer("\ufeffa x\r\n\r\n", "a x\n")[1]).startswith("0.00 % N=1")
    assert compute_wer.main(["none", "none"]) == 1


def test_wrong_flags_stop(wer):
    for flag in ("--chr=1", "--char=maybe"):
        with pytest.raises(SystemExit):
            wer("a x\n", "a x\n", flag)


def test_tool_runs_without_torch_and_numpy(tmp_path):
    (tmp_path / "t").write_text("a x y\n")
    for tool in ("compute-wer.py", "compute-acc.py"):
        code = f"import sys, runpy; sys.modules.update(torch=None, numpy=None); runpy.run_path('{TOOLS / tool}', run_name='__main__')"
        files = [str(tmp_path / "t")] * 2
        done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0 and "Overall ->" in done.stdout, done.stderr


def test_seven_thousand_utterances_are_fast(wer):
    lines = "".join(f"utt{i} 今天天气很好我们去公园看{i % 97}朵花\n" for i in range(7000))
    start = time.process_time()
    assert overall(wer(lines, lines.replace("公园", "花园"), "--char=1")[1]).startswith("6.67 % N=105000")
    assert time.process_time() - start < 2.0  # WeNet's takes about this long; a few times less here, with room for a busy machine


def test_accuracy_of_labels(wer):
    ref, hyp = "a happy\nb <SAD>\nc sad\nd sad\n", "b sad\na hello<happy>\nd joyful\n"
    code, out, err = wer(ref, hyp, main=compute_acc.main)
    assert code == 0 and out.splitlines()[-1] == "Overall -> 50.00 % N=4 C=2 UAR=66.67 macroF1=75.00"
    assert "utt: d\nlab: SAD\nrec: joyful" in out and "counted as wrong" in err
    assert "N=3 C=2" in wer(ref, hyp, "--missing=skip", main=compute_acc.main)[1]
    assert "N=4 C=2" in wer("a happy\nb sad\nc sad\nd sad", "a 开心\nb 悲伤\n", "--task=ser", main=compute_acc.main)[1]
    assert wer("a glad\n", "a sad\n", "--task=ser", main=compute_acc.main)[0] == 1
    assert wer("", "a sad\n", main=compute_acc.main)[0] == 1


def test_labels_may_be_any_text(wer):
    ref, hyp = "a 0\nb 1\nc 1\nd -1\n", "a 0\nb text<1>\nc 0\nd 1\n"
    code, out, _ = wer(ref, hyp, main=compute_acc.main)
    assert code == 0 and out.splitlines()[-1].startswith("Overall -> 50.00 % N=4 C=2")
    assert "-1 -> 0.00 % N=1 C=0 answered=0" in out and "0 -> 100.00 % N=1 C=1 answered=2" in out
    odd = "a a\\b\nb 3.5 to 4\nc -\nd x<y\ne _\nf New_York\n"
    assert "Overall -> 100.00 % N=6 C=6" in wer(odd, odd.replace("New_York", "new york"), main=compute_acc.main)[1]
    code, _, err = wer("a\n", "a 1\n", main=compute_acc.main)
    assert code == 1 and "holds no label" in err

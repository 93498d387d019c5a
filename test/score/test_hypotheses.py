"""Hypothesis files: good, odd and broken ones."""

from __future__ import annotations

import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis
from wenet_osum.score.hypotheses import find_file, read_hypotheses

SER = tasks.parse("ser")


def row(key: str, text: str = "hi<sad>") -> str:
    return Hypothesis(key, SER.tags, text, labels={"emotion": "sad"}).to_json()


def test_json_lines_and_text_lines(tmp_path):
    (tmp_path / "hyp.jsonl").write_text(row("键.1 a") + "\n\n" + row("b") + "\n", encoding="utf-8")
    found, odd = read_hypotheses(tmp_path, SER)
    assert [*found] == ["键.1 a", "b"] and not odd
    (tmp_path / "t").write_bytes("\ufeffa hi there<angry>\r\nb\n键\t你好<开心>\n".encode())
    found, _ = read_hypotheses(tmp_path / "t", SER)
    assert found["a"].transcript == "hi there" and found["a"].labels == {"emotion": "anger"}
    assert found["b"].unread and found["键"].labels == {"emotion": "happy"}


def test_unknown_columns_are_ignored(tmp_path):
    (tmp_path / "h").write_text('{"key": "a", "text": "x", "later": 1}\n')
    assert read_hypotheses(tmp_path / "h", SER)[0]["a"].text == "x"


def test_a_row_that_only_has_a_text_is_read(tmp_path):
    (tmp_path / "h").write_text('{"key": "a", "text": "hi there<angry>"}\n{"key": "b", "text": ""}\n')
    found, _ = read_hypotheses(tmp_path / "h", SER)
    assert (found["a"].transcript, found["a"].labels) == ("hi there", {"emotion": "anger"})
    assert found["b"].transcript == "" and "emotion" in found["b"].unread


@pytest.mark.parametrize(
    ("column", "value"),
    [("transcript", "5"), ("labels", '["sad"]'), ("labels", '{"emotion": 3}'), ("probs", '{"emotion": "high"}'), ("probs", '{"emotion": {"sad": NaN}}'),
     ("probs", '{"emotion": {"sad": 7}}'), ("flags", "3"), ("flags", '"loop"'), ("duration", '"long"'), ("error", "true"), ("task", "null, \"task\": 1")],
)  # fmt: skip
def test_values_of_a_wrong_type_are_clear_errors(tmp_path, column, value):
    (tmp_path / "h").write_text(f'{row("a")}\n{{"key": "b", "text": "x", "{column}": {value}}}\n')
    with pytest.raises(ValueError, match=f"line 2 is not a hypothesis: {column} must be"):
        read_hypotheses(tmp_path / "h", SER)


@pytest.mark.parametrize("line", ["[1, 2]", "null", "b hello<sad>", "\0\0", "[" * 10_000])
def test_json_lines_are_json_lines_to_the_end(tmp_path, line):
    (tmp_path / "h").write_text(f"{row('a')}\n{line}\n")
    with pytest.raises(ValueError, match="line 2 is not a hypothesis"):
        read_hypotheses(tmp_path / "h", SER)


def test_repeated_lines(tmp_path):
    path = tmp_path / "h"
    path.write_text(f"{row('a')}\n{row('a')}\n{row('b')}\n")
    found, odd = read_hypotheses(path, SER)
    assert len(found) == 2 and "1 line repeated" in odd[0]
    path.write_text(f"{row('a')}\n{row('a', 'other<sad>')}\n")
    with pytest.raises(ValueError, match="line 2: key 'a' has two different answers"):
        read_hypotheses(path, SER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no hypothesis"),
        (b"\n \n", "holds no hypothesis"),
        ("a 你好\nb 世界\n".encode("gb18030"), "line 1 is not UTF-8"),
        (b"a ok\nb \xff\n", "line 2 is not UTF-8"),
        (b'{"key": "a", "text"\n', "line 1 is not a hypothesis"),
        (b'{"text": "x"}\n', "needs a text 'key'"),
        (b'{"key": "a", "text": "x", "words": [["w", "soon", 1]]}\n', "words of 'a'"),
    ],
)
def test_broken_files_are_clear_errors(tmp_path, content, message):
    (tmp_path / "h").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_hypotheses(tmp_path / "h", SER)


def test_which_file_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="do not exist"):
        find_file(tmp_path / "none", SER)
    with pytest.raises(ValueError, match="found none"):
        find_file(tmp_path, SER)
    (tmp_path / "one.jsonl").touch()
    assert find_file(tmp_path, SER).name == "one.jsonl"
    (tmp_path / "two.jsonl").touch()
    with pytest.raises(ValueError, match="several"):
        find_file(tmp_path, SER)
    (tmp_path / "hyp.jsonl").touch()
    assert find_file(tmp_path, SER).name == "hyp.jsonl"
    (tmp_path / "ser.jsonl").touch()
    assert find_file(tmp_path, SER).name == "ser.jsonl"


@pytest.mark.parametrize("time", ["NaN", "Infinity"])
def test_word_times_are_numbers(tmp_path, time):
    """One that is none would make the mean of a whole list none."""
    line = '{"key": "a", "text": "x", "transcript": "x", "words": [["x", 0.5, %s]]}'
    (tmp_path / "h").write_text(line % time + "\n")
    with pytest.raises(ValueError, match="h line 1 is not a hypothesis: the times of 'x' must be"):
        read_hypotheses(tmp_path / "h", SER)

"""Result files: what a kill leaves, what goes on, and the order at the end."""

from __future__ import annotations

import json

import pytest

from wenet_osum.decode.write import READ_WHOLE, Writer, fingerprint, finished, merge, open_run
from wenet_osum.records import Hypothesis


def answer(key, text="t"):
    return Hypothesis(key, "<TRANSCRIBE>", text)


def test_parts_are_merged_in_list_order(tmp_path):
    assert not open_run(tmp_path, {"a": 1})
    for rank, places in enumerate(([3, 0], [2, 1])):
        with Writer(tmp_path, rank) as writer:
            writer.add([(place, answer(f"k{place}", f"a\nb {place}")) for place in places])
    assert finished(tmp_path) == {0, 1, 2, 3} and merge(tmp_path) == 4
    rows = [json.loads(line) for line in (tmp_path / "hyp.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == ["k0", "k1", "k2", "k3"] and rows[0]["text"] == "a\nb 0"
    assert (tmp_path / "text").read_text().splitlines()[1] == "k1 a b 1"
    assert open_run(tmp_path, {"a": 1}) and sorted(p.name for p in tmp_path.iterdir()) == ["hyp.jsonl", "settings.json", "text"]


@pytest.mark.parametrize("torn", [b'[7, {"key": "k7", "ta', b'[7, {"key"\n', b"\xff\xfe", b"\n"])
def test_a_torn_line_is_cut_off(tmp_path, torn):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("你 k.0"))])
    with open(tmp_path / "part.0.jsonl", "ab") as file:
        file.write(torn)
    assert not open_run(tmp_path, {}) and finished(tmp_path) == {0}
    with Writer(tmp_path) as writer:
        writer.add([(7, answer("k7"))])
    assert merge(tmp_path) == 2


def test_other_settings_are_refused_once_there_are_answers(tmp_path):
    open_run(tmp_path, {"task": "asr"})
    open_run(tmp_path, {"task": "ser"})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a"))])
    with pytest.raises(ValueError, match="task: 'ser' there, 'asr' now"):
        open_run(tmp_path, {"task": "asr"})


def test_a_killed_merge_is_done_again(tmp_path):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a"))])
    part = (tmp_path / "part.0.jsonl").read_bytes()
    merge(tmp_path)
    (tmp_path / "part.0.jsonl").write_bytes(part)  # killed before it was removed
    assert open_run(tmp_path, {}) and not list(tmp_path.glob("part*"))


def test_half_a_surrogate_does_not_stop_the_run(tmp_path):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a", "x\udc80"))])
    assert merge(tmp_path) == 1 and "a x" in (tmp_path / "text").read_text()


def test_a_model_trained_anew_is_another_one(tmp_path):
    weights = bytearray(2 * READ_WHOLE)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text("{}")
    first = fingerprint(tmp_path)
    (tmp_path / "DONE").write_text("")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer/state.json").write_text("5")
    assert fingerprint(tmp_path) == first  # what is not loaded does not count
    for change in (lambda: (tmp_path / "config.json").write_text("[]"), lambda: (tmp_path / "model.safetensors").write_bytes(weights[:-1] + b"\1")):
        before = fingerprint(tmp_path)
        change()
        assert fingerprint(tmp_path) != before
    assert fingerprint("someone/model") == "someone/model"

"""Result files: what a kill leaves, what goes on, and the order at the end."""

from __future__ import annotations

import errno
import json
import os
import pickle

import pytest

from wenet_osum import lock
from wenet_osum.decode.write import (
    READ_WHOLE,
    Writer,
    fingerprint,
    finished,
    merge,
    open_run,
    text_names,
)
from wenet_osum.records import Hypothesis


def answer(key, text="t"):
    return Hypothesis(key, "<TRANSCRIBE>", text)


def test_parts_are_merged_in_list_order(tmp_path):
    assert not open_run(tmp_path, {"a": 1})
    for rank, places in enumerate(([3, 0], [2, 1])):
        with Writer(tmp_path, rank) as writer:
            writer.add([(place, answer(f"k{place}", f"a\nb {place}")) for place in places])
    assert finished(tmp_path) == {0, 1, 2, 3}
    merge(tmp_path, ["k0", "k1", "k2", "k3"])
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
        writer.add([(1, answer("k7"))])
    merge(tmp_path, ["你 k.0", "k7"])
    lines = (tmp_path / "text").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["你_k.0", "k7"]


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
    merge(tmp_path, ["a"])
    (tmp_path / "part.0.jsonl").write_bytes(part)  # killed before it was removed
    assert open_run(tmp_path, {}) and not list(tmp_path.glob("part*"))


def test_half_a_surrogate_does_not_stop_the_run(tmp_path):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a", "x\udc80"))])
    merge(tmp_path, ["a"])
    assert "a x" in (tmp_path / "text").read_text()


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


def test_answers_that_are_missing_stop_the_merge(tmp_path):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a")), (2, answer("c")), (5, answer("x"))])
    before = (tmp_path / "part.0.jsonl").read_bytes()
    told = "answers to 2 of 3 utterances and 1 of another list; .* start the same command again"
    with pytest.raises(ValueError, match=told):
        merge(tmp_path, ["a", "b", "c"])
    assert (tmp_path / "part.0.jsonl").read_bytes() == before
    assert not (tmp_path / "hyp.jsonl").exists()


def test_results_are_never_replaced_by_fewer(tmp_path):
    open_run(tmp_path, {})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a"))])
    (tmp_path / "hyp.jsonl").write_text("1\n2\n")
    with pytest.raises(ValueError, match="has 2 lines, this run 1; it stays as it is"):
        merge(tmp_path, ["a"])
    assert (tmp_path / "hyp.jsonl").read_text() == "1\n2\n"


def test_white_space_in_keys_never_makes_two_keys_one():
    keys = ["k 2", "k_2", "k\t2", "k\u30002", "k\n2", "plain", "k_2_2", "  "]
    names = text_names(keys)
    assert names == ["k_2_3", "k_2", "k_2_4", "k_2_5", "k_2_6", "plain", "k_2_2", "__"]
    assert all(name.split() == [name] for name in names)


def test_what_is_only_told_does_not_refuse_earlier_answers(tmp_path):
    open_run(tmp_path, {"task": "ser"})
    with Writer(tmp_path) as writer:
        writer.add([(0, answer("a"))])
    told = {"labels": {"emotion": ["calm"]}}
    assert not open_run(tmp_path, {"task": "ser"}, told)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"task": "ser", **told}
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match="settings.json cannot be read"):
        open_run(tmp_path, {"task": "ser"})


def test_a_folder_has_one_writer(tmp_path):
    with lock.held(tmp_path):
        told = rf"is being written by process {os.getpid()} on .*; wait until it has ended .* another folder"
        with pytest.raises(ValueError, match=told):
            lock.held(tmp_path).__enter__()
    with lock.held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_of_another_host_does_not_keep_out_who_must_go_on(tmp_path):
    """A network drive may keep the lock of a machine that was lost."""
    with lock.held(tmp_path):
        with pytest.raises(lock.Taken, match="is being written"), lock.held_on_this_host(tmp_path):
            pass
        (tmp_path / "lock").write_text("process 7 on elsewhere\n")
        with lock.held_on_this_host(tmp_path):
            assert (tmp_path / "lock").exists()
        assert (tmp_path / "lock").exists(), "it is not ours to remove"
        with pytest.raises(lock.Taken) as caught:
            lock.held(tmp_path).__enter__()
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.owner == "process 7 on elsewhere" and str(again) == str(caught.value), "rank 0 tells it to the others"


def test_without_flock_a_file_says_who_writes(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with lock.held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["lock.owner"]
        told = rf"process {os.getpid()} on .*no longer runs, delete .*lock.owner and start again"
        with pytest.raises(ValueError, match=told):
            lock.held(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_was_removed_locks_nothing(tmp_path, monkeypatch):
    """The holder before ends between opening the file and locking it."""
    flock, calls = lock.fcntl.flock, []

    def removed_first(descriptor: int, how: int) -> None:
        if not calls:
            (tmp_path / "lock").unlink()
        calls.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", removed_first)
    with lock.held(tmp_path):
        assert len(calls) == 2 and (tmp_path / "lock").exists()

"""Shards give back what was packed, in every layout and tar form; every kind of damage is counted, none is silent."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset import index as indices
from wenet_osum.dataset import packed as packing
from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.shard import (
    Drop,
    Dropped,
    Handles,
    load_list,
    pack,
    read_utterance,
    write_list,
)
from wenet_osum.dataset.tar import split_name, stem_of
from wenet_osum.records import Utterance, Word

KEYS = ["plain", "a.b.c", "x.wav", "你好 世界", "dir/sub/utt", " lead", "trail ", "../up", "/abs", "./dot", "line\nbreak"]
KEYS += ["长" * 120, "a//b", "100%25", "key-" + "a" * 40]
NASTY = "<anger> a < b \\ \n<|endoftext|>\u2028 末\r\n"
WAV = write_wav(np.sin(np.arange(3200) / 20).astype(np.float32))


def write_recording(folder, name="a.wav", data=WAV):
    (folder / name).write_bytes(data)
    return str(folder / name)


def utterance(folder, key, **fields):
    return Utterance(key=key, wav=write_recording(folder), **fields)


def make_tar(path, members, form=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return list_of(path)


def list_of(*paths):
    name = f"{paths[0]}.list"
    write_list(name, paths)
    return name


def load(path):
    """{key: (utterance, audio)} of a list, and the faults."""
    dropped, handles = Dropped(), Handles()
    found = {str(k): read_utterance(index, i, handles) for index in load_list(path, dropped) for i, k in enumerate(index.keys)}
    return found, dropped


def test_every_field_comes_back_under_every_key(tmp_path):
    full = {
        "txt": NASTY, "task": "ser", "lang": "zh", "speaker": "s",
        "labels": {"gender": "female", "age": 31, "emotion": "happy", "style": "客服", "event": "laugh"}, "words": [Word("你", 0.0, 0.1)], "reply": NASTY, "extra": {"source": [1, "<x>"]},
    }  # fmt: skip
    given = [utterance(tmp_path, key, **full) for key in KEYS] + [utterance(tmp_path, "bare"), utterance(tmp_path, "empty", txt="")]
    report = pack(given, tmp_path / "shards", per_shard=7, log=lambda line: None)
    assert report.counts == [7, 7, 3] and not report.dropped
    found, dropped = load(list_of(*report.paths))
    assert not dropped and list(found) == [u.key for u in given]
    for u in given:
        got, audio = found[u.key]
        u.wav, u.duration, got.wav = "", 0.2, ""
        assert got == u and audio == WAV


def test_index_columns(tmp_path):
    rows = [utterance(tmp_path, "a", txt="你好", labels={"age": 3}, task="ser", words=[Word("你", 0, 0.1)] * 2, reply="é"), utterance(tmp_path, "b", lang="en")]
    (index,) = load_list(list_of(*pack(rows, tmp_path / "s", log=print).paths), Counter())
    assert index.kind == "tar" and index.lengths.tolist() == [[6, 2, 2], [0, 0, 0]] and index.lengths.dtype == np.int32
    assert index.durations.tolist() == [pytest.approx(0.2)] * 2 and index.durations.dtype == np.float32
    assert index.offsets.tolist() == [0, index.sizes[0]] and index.offsets.dtype == index.sizes.dtype == np.int64
    assert [index.columns[c].tolist() for c in ("age", "lang", "task")] == [["3", ""], ["", "en"], ["ser", ""]]
    assert len(index.select(slice(0, 1))) == 1 and index.select(np.array([False, True])).keys.tolist() == ["b"]


def test_our_shards_are_read_by_tarfile_as_wenet_does(tmp_path):
    (path,) = pack([utterance(tmp_path, "a.b 你", txt="x", lang="zh")], tmp_path / "s", log=print).paths
    with tarfile.open(path) as tar:
        assert [m.name for m in tar] == ["a.b 你.wav", "a.b 你.txt", "a.b 你.json"]
        assert tar.extractfile("a.b 你.wav").read() == WAV
    assert (tmp_path / "s" / "shards_000000000.tar").exists()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_forms_with_long_and_chinese_names(tmp_path, form):
    deep = "/".join(["d" * 60] * 3)  # over 100 bytes: prefix, long name or PAX record
    path = make_tar(tmp_path / "x.tar", [(f"./{k}.{e}", d) for k in (deep, "你好 1.5") for e, d in (("wav", WAV), ("txt", "t\n"))], form)
    found, dropped = load(path)
    assert not dropped and list(found) == [deep, "你好 1.5"] and found[deep][0].txt == "t" and found[deep][1] == WAV


def test_published_osum_layout(tmp_path):
    members = {"wav": WAV, "txt": "你好<anger>", "task": "<TRANSCRIBE> <EMOTION>", "lang": "<CN>", "speaker": "G1"}
    members |= {"emotion": "<ANGER>", "gender": "<NONE>", "duration": "1.0", "extra": '{"age": "<ADULT>", "dataset": "d"}'}
    found, dropped = load(make_tar(tmp_path / "x.tar", [(f"u.{e}", d) for e, d in members.items()]))
    got = found["u"][0]
    assert not dropped and (got.txt, got.task, got.lang, got.speaker, got.labels.get("emotion"), got.labels.get("gender")) == (
        "你好<anger>", "<TRANSCRIBE> <EMOTION>", "zh", "G1", "ANGER", None,
    )  # fmt: skip
    assert got.labels.get("age") == "ADULT" and got.extra == {"dataset": "d"} and got.duration == 0.2


def test_osum_layout_is_written_with_the_composed_target(tmp_path):
    good = utterance(tmp_path, "a", txt="你好", task="ser", labels={"emotion": "happy", "age": 30}, lang="zh", extra={"dataset": "d"})
    bad = [utterance(tmp_path, "b", txt="x", task="ser"), utterance(tmp_path, "c", txt="x"), utterance(tmp_path, "d", txt="x", task="sre")]
    bad += [utterance(tmp_path, "bad\nkey", txt="x", task="asr")]
    report = pack([good, *bad], tmp_path / "s", layout="osum", log=print)
    with tarfile.open(report.paths[0]) as tar:
        parts = {m.name: tar.extractfile(m).read().decode() for m in tar if not m.name.endswith("wav")}
    assert parts["a.txt"] == "你好<happy>" and parts["a.task"] == "<TRANSCRIBE> <EMOTION>" and parts["a.emotion"] == "happy"
    found, _ = load(list_of(*report.paths))
    assert list(found) == ["a"] and found["a"][0].labels.get("age") == 30 and found["a"][0].extra == {"dataset": "d"}
    assert dict(report.dropped.pairs).keys() == {"b", "c", "d", "bad\nkey"} and report.dropped["no task"] == 1


def test_unplain_keys_make_safe_member_names():
    for key in KEYS:
        assert ".." not in stem_of(key) and "\n" not in stem_of(key) and not stem_of(key).startswith(("/", "./"))
        if stem_of(key) == key:
            assert split_name(f"{key}.WAV") == (key, "wav")
    assert split_name("a.b") == ("a.b", "") and split_name(".wav") == (".wav", "")


PAIR = [("a.wav", WAV), ("a.txt", "x")]


@pytest.mark.parametrize(
    ("members", "kept", "reason"),
    [
        ([*PAIR, ("b.txt", "x"), ("c.wav", WAV)], ["a", "c"], "no audio member"),
        ([*PAIR, ("b.wav", WAV), ("a.json", "{}")], ["b"], "interleaved members (those of one utterance must lie side by side)"),
        ([*PAIR, ("b.wav", WAV), *PAIR], ["a", "b"], "duplicate key"),
        ([*PAIR, ("a.wav", WAV)], ["a"], "duplicate key"),
        ([*PAIR, ("b.wav", b"junk")], ["a"], "audio: unreadable"),
        ([*PAIR, ("b.wav", b"")], ["a"], "audio: empty"),
        ([*PAIR, ("b.wav", write_wav(np.zeros(0, np.float32)))], ["a"], "audio: empty"),
        ([*PAIR, ("b.wav", WAV), ("b.txt", "你好".encode()[:4])], ["a"], "text is not UTF-8"),
        ([*PAIR, ("b.wav", WAV), ("b.json", "{")], ["a"], "json member cannot be read"),
        ([*PAIR, ("b.wav", WAV), ("b.json", "[]")], ["a"], "json member cannot be read"),
        ([*PAIR, ("b.wav", WAV), ("b.json", '{"txt": [1]}')], ["a"], "shard: field cannot be read"),
        ([*PAIR, ("README", "x")], ["a"], "member without a known extension"),
    ],
)
def test_damaged_utterances_are_counted_and_the_rest_kept(tmp_path, members, kept, reason):
    path = make_tar(tmp_path / "x.tar", members)
    for _ in range(2):  # scanned, then from the stored index
        found, dropped = load(path)
        assert list(found) == kept and dropped == Counter({reason: 1})


def test_side_files_and_folders_do_no_harm(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in (("d/a.wav", WAV), ("d/a.npy", b"1"), ("d/a.txt", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found, dropped = load(list_of(tmp_path / "x.tar"))
    assert found["d/a"][0].txt == "x" and not dropped


def test_tar_cut_at_every_block_loses_only_what_is_gone(tmp_path):
    make_tar(tmp_path / "x.tar", [(f"{k}.{e}", d) for k in "abc" for e, d in (("wav", WAV), ("json", '{"lang": "zh"}'))])
    data = (tmp_path / "x.tar").read_bytes()
    one = 512 + -(-len(WAV) // 512) * 512 + 1024
    for size in range(one, 3 * one, 300):
        (tmp_path / "x.tar").write_bytes(data[:size])
        dropped = Dropped()
        try:
            kept = [str(k) for index in load_list(list_of(tmp_path / "x.tar"), dropped) for k in index.keys]
        except ValueError as error:
            assert "no usable utterance" in str(error)
            kept = []
        # right after an utterance, or inside the next one's first header, nobody can tell whether a member is missing
        assert kept == list("abc")[: size // one - (size % one < 512)]
        assert sum(n for r, n in dropped.items() if r.startswith("tar cut short")) == 1


def test_tar_with_a_damaged_header_keeps_what_lies_before(tmp_path):
    path = make_tar(tmp_path / "x.tar", [(f"{k}.wav", WAV) for k in "abc"])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    at = data.index(b"c.wav")
    data[at + 120] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    dropped = Dropped()
    assert [i.keys.tolist() for i in load_list(path, dropped)] == [["a"]] and dropped.pairs[0][0] == "b"


def test_stale_or_damaged_index_is_rebuilt(tmp_path):
    path = make_tar(tmp_path / "x.tar", PAIR)
    assert list(load(path)[0]) == ["a"] and (tmp_path / "x.tar.index.npz").exists()
    make_tar(tmp_path / "x.tar", [("b.wav", WAV), ("b.txt", "x")])
    os.utime(tmp_path / "x.tar", (1, 1))
    assert list(load(path)[0]) == ["b"]
    (tmp_path / "x.tar.index.npz").write_bytes(b"PK junk")
    assert list(load(path)[0]) == ["b"]


def test_a_file_changed_behind_the_index_is_a_drop(tmp_path):
    path = make_tar(tmp_path / "x.tar", [*PAIR, ("b.wav", WAV), ("b.txt", "x")])
    (index,) = load_list(path, Counter())
    make_tar(tmp_path / "x.tar", [("c.wav", WAV), ("c.txt", "x")])
    with pytest.raises(Drop, match="index does not fit"):
        read_utterance(index, 0, Handles())
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(Drop, match="shorter than its index says"):
        read_utterance(index, 1, Handles())
    (tmp_path / "x.tar").unlink()
    with pytest.raises(Drop, match="cannot be read"):
        read_utterance(index, 1, Handles())


def test_an_index_of_another_version_or_without_a_column_is_built_anew(tmp_path, monkeypatch):
    rows = [
        utterance(tmp_path, "a", lang="en", labels={"gender": "male", "event": "laugh"}),
        utterance(tmp_path, "b"),
    ]
    (path,) = pack(rows, tmp_path / "s", log=print).paths
    stamp = indices.stamp_of(path)
    assert indices.restore(path, stamp) is not None
    assert indices.restore(path, stamp, needed=("lang", "accent")) is None
    with np.load(path + indices.SUFFIX) as stored:
        arrays, meta = dict(stored), json.loads(str(stored["meta"]))
    old = json.dumps(meta | {"version": 1})
    np.savez(path + indices.SUFFIX, **(arrays | {"meta": np.array(old)}))
    assert indices.restore(path, stamp) is None
    monkeypatch.setattr(indices.tasks, "label_names", lambda: ("event", "accent"))
    columns = load_list(list_of(path), Counter())[0].columns
    expected = [["", ""], ["en", ""], ["", ""], ["laugh", ""], ["", ""]]
    assert [column.tolist() for column in columns.values()] == expected


def test_a_label_may_be_a_member_of_its_own(tmp_path):
    members = {"wav": WAV, "txt": "x", "style": "<客服>", "event": "none", "accent": "north"}
    found, dropped = load(make_tar(tmp_path / "x.tar", [(f"u.{e}", d) for e, d in members.items()]))
    assert found["u"][0].labels == {"style": "客服"} and not dropped, "an unknown member beside the audio is passed over"


def test_read_only_folder_still_works(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "x.tar", PAIR)

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(indices.os, "replace", refuse)
    assert list(load(path)[0]) == ["a"] and not list(tmp_path.glob("*npz*"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read .No such file"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"/none/x.tar\n", "1 of 1 shards do not exist"),
        (b"\xff\xfe\0", "not UTF-8"),
    ],
)
def test_bad_lists_say_what_to_do(tmp_path, content, match):
    if content is not None:
        (tmp_path / "l").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        load_list(tmp_path / "l", Counter())


def test_a_tar_for_a_list_and_an_empty_shard(tmp_path):
    make_tar(tmp_path / "x.tar", PAIR)
    with pytest.raises(ValueError, match="is a tar; write its path"):
        load_list(tmp_path / "x.tar", Counter())
    (tmp_path / "e.tar").write_bytes(b"")
    dropped = Counter()
    assert [len(i) for i in load_list(list_of(tmp_path / "x.tar", tmp_path / "e.tar"), dropped)] == [1]
    assert dropped == {"empty shard (0 bytes)": 1}


def test_duplicate_keys_across_shards(tmp_path):
    make_tar(tmp_path / "x.tar", PAIR)
    make_tar(tmp_path / "y.tar", [*PAIR, ("b.wav", WAV)])
    found, dropped = load(list_of(tmp_path / "x.tar", tmp_path / "y.tar"))
    assert list(found) == ["a", "b"] and dropped.pairs == [("a", "duplicate key")]


def test_raw_list(tmp_path):
    wav = write_recording(tmp_path)
    rows = [{"key": "你 好.1", "wav": wav, "txt": NASTY}, {"key": "s", "wav": "a.wav", "start": 0.05, "end": 0.15, "words": [["x", 0, 0.1]]}]
    rows += [{"key": "gone", "wav": "none.wav"}, {"key": "later", "wav": "none.wav", "duration": 1.0}, {"key": "你 好.1", "wav": wav}, {"wav": wav}]
    (tmp_path / "raw.list").write_text("\ufeff" + "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    dropped = Dropped()
    (index,) = load_list(tmp_path / "raw.list", dropped)
    assert index.kind == "raw" and index.keys.tolist() == ["你 好.1", "s", "later"]
    assert index.durations.tolist() == [pytest.approx(v) for v in (0.2, 0.1, 1.0)]
    assert dropped == {"audio: file not found": 1, "duplicate key": 1, "manifest: manifest row needs a non-empty string 'key'": 1}
    handles = Handles()
    whole, segment = read_utterance(index, 0, handles), read_utterance(index, 1, handles)
    assert whole[0].txt == NASTY and whole[1] == WAV
    assert segment[0].start is None and segment[0].end is None and np.array_equal(decode(segment[1]), decode(WAV)[800:2400])
    with pytest.raises(Drop, match="file not found"):
        read_utterance(index, 2, handles)
    write_recording(tmp_path, "none.wav")  # mending a recording needs no change of the list
    assert "gone" in load_list(tmp_path / "raw.list", Counter())[0].keys


def test_raw_lists_come_in_parts_of_a_thousand(tmp_path):
    (tmp_path / "l").write_text("".join(json.dumps({"key": f"k{i}", "wav": "x", "duration": 1}) + "\n" for i in range(2500)))
    for _ in range(2):
        assert [len(i) for i in load_list(tmp_path / "l", Counter())] == [1000, 1000, 500]
    assert load_list(tmp_path / "l", Counter())[2].keys[-1] == "k2499"


def test_pack_cuts_segments_resamples_and_copies(tmp_path):
    odd = write_wav(np.sin(np.arange(4410) / 20).astype(np.float32), 44100)
    given = [utterance(tmp_path, "s", start=0.05, end=0.15), Utterance("o", write_recording(tmp_path, "o.wav", odd))]
    found, _ = load(list_of(*pack(given, tmp_path / "s", log=print).paths))
    assert found["o"][1] == odd and np.array_equal(decode(found["s"][1]), decode(WAV)[800:2400]) and found["s"][0].duration == pytest.approx(0.1)
    found, _ = load(list_of(*pack(given[1:], tmp_path / "r", resample=8000, log=print).paths))
    assert len(found["o"][1]) == 44 + 1600 and found["o"][0].duration == pytest.approx(0.1, abs=1e-3)


def test_pack_counts_what_it_cannot_use(tmp_path):
    bad = [("junk", b"junk"), ("empty", b""), ("cut", WAV[:1000]), ("zero", write_wav(np.zeros(0, np.float32)))]
    given = [Utterance(k, write_recording(tmp_path, f"{k}.wav", d)) for k, d in bad] + [Utterance("gone", "none.wav"), utterance(tmp_path, "ok")]
    given += [utterance(tmp_path, "ok"), utterance(tmp_path, "half \ud800"), utterance(tmp_path, "out", start=5.0, end=6.0)]
    report = pack(given, tmp_path / "s", log=print)
    assert report.counts == [1] and dict(report.dropped.pairs) == {
        "junk": "audio: unreadable", "empty": "audio: empty", "cut": "audio: cut short", "zero": "audio: empty", "gone": "audio: file not found",
        "ok": "duplicate key", "half \ud800": "manifest: text must be valid Unicode", "out": "audio: segment outside the recording",
    }  # fmt: skip


def test_pack_goes_on_where_it_stopped(tmp_path, monkeypatch):
    given = [utterance(tmp_path, f"k{i}") for i in range(6)]
    write, count = packing.member_parts, [0]

    def counted(*args):
        count[0] += 1
        if count[0] == 4:
            raise OSError("disk full")
        return write(*args)

    monkeypatch.setattr(packing, "member_parts", counted)
    with pytest.raises(OSError, match="disk full"):
        pack(given, tmp_path / "s", per_shard=2, log=print)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["shards_000000000.tar", "shards_000000000.tar.index.npz"]
    assert pack(given, tmp_path / "s", per_shard=2, log=print).counts == [2, 2, 2] and count[0] == 8
    assert pack(given, tmp_path / "s", per_shard=2, log=print).counts == [2, 2, 2] and count[0] == 8
    given[5].txt = "changed"
    pack(given, tmp_path / "s", per_shard=2, log=print)
    assert count[0] == 10


def test_processes_give_the_same_bytes_and_a_failed_one_fails_the_call(tmp_path):
    given = [utterance(tmp_path, f"k{i}", txt="x") for i in range(5)]
    one, two = (pack(given, tmp_path / f"j{jobs}", per_shard=2, jobs=jobs, log=print) for jobs in (1, 2))
    assert [Path(a).read_bytes() == Path(b).read_bytes() for a, b in zip(one.paths, two.paths, strict=True)] == [True] * 3
    (tmp_path / "bad" / "shards_000000001.tar.tmp").mkdir(parents=True)  # a worker cannot write its shard
    with pytest.raises(OSError):
        pack(given, tmp_path / "bad", per_shard=2, jobs=2, log=print)


@pytest.mark.parametrize("bad", [{"layout": "zip"}, {"per_shard": 0}, {"jobs": 0}, {"resample": 1}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError, match="correct the one outside"):
        pack([], tmp_path, **bad)


def test_handles_close_the_oldest_and_travel_empty(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    handles = Handles(limit=2)
    assert [handles.read(str(tmp_path / n), 0, 1) for n in "abcab"] == [b"a", b"b", b"c", b"a", b"b"]
    assert len(handles._open) == 2 and not pickle.loads(pickle.dumps(handles))._open
    drop = pickle.loads(pickle.dumps(Drop("reason", "detail")))
    assert (drop.reason, drop.detail, str(drop)) == ("reason", "detail", "reason: detail")

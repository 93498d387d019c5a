"""The indices of a list: small, mapped once a machine, scanned once, and trusted after a copy."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import tarfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset import index as indices
from wenet_osum.dataset import list_parts, shard_index, stretch
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.list_file import ListFile, Writer, make_block, open_file
from wenet_osum.dataset.list_index import file_of, load_list
from wenet_osum.dataset.pool import build_pool
from wenet_osum.files import locked

WAV = write_wav(np.sin(np.arange(3200) / 20).astype(np.float32))
FORK = multiprocessing.get_context("fork")


def make_tar(path, keys, text="x"):
    """A shard of one recording and a text a key."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for key in keys:
            for ext, data in (("wav", WAV), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{key}.{ext}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def make_list(folder, shards=3, each=2):
    """A list of small shards without indices; returns its path."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(shards):
        keys = [f"s{number}.{row}" for row in range(each)]
        paths.append(make_tar(folder / f"{number}.tar", keys))
    return list_of(folder, paths)


def list_of(folder, paths):
    (folder / "data.list").write_text("".join(f"{path}\n" for path in paths))
    return str(folder / "data.list")


def keys_of(path, dropped=None):
    found = load_list(path, Counter() if dropped is None else dropped)
    return [key for index in found for key in index.keys]


@pytest.fixture
def scans(monkeypatch, tmp_path):
    """Write a line to a file for every shard that is scanned, in any process; return the lines."""
    log, scan = tmp_path / "scans", shard_index.scan_file
    log.touch()

    def logged(file_path, path):
        with open(log, "a") as out:
            out.write(f"{path}\n")
        time.sleep(0.05)
        return scan(file_path, path)

    monkeypatch.setattr(shard_index, "scan_file", logged)
    return lambda: log.read_text().splitlines()


def made_up(shards=20, rows=1000):
    """Indices with keys of 24 letters, speakers of 16, and labels, as arrays."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(shards):
        columns = {name: np.full(rows, "") for name in column_names()}
        people = rng.integers(0, 3000, rows)
        columns["speaker"] = np.array([f"speaker-{person:08d}" for person in people])
        columns["emotion"] = rng.choice(["happy", "neutral", "", "生气"], rows)
        columns["lang"] = np.full(rows, "zh")
        sizes = rng.integers(60_000, 480_000, rows)
        index = Index(
            path=f"{number}.tar",
            keys=np.array([f"corpus-speech-{number * rows + row:010d}" for row in range(rows)]),
            offsets=np.cumsum(sizes) - sizes,
            sizes=sizes,
            durations=rng.uniform(1, 20, rows).astype(np.float32),
            columns=columns,
            lengths=rng.integers(0, 300, (rows, 3)).astype(np.int32),
            kind="tar",
        )
        if number == 3:
            index.turns = rng.integers(0, 9, (rows, 4)).astype(np.int32)
        found.append(index)
    return found


def write(path, found):
    with open(path, "w+b") as out:
        writer = Writer(out, column_names())
        for number, index in enumerate(found):
            writer.add(make_block(index, column_names()), number)
        meta = {"paths": [index.path for index in found], "kind": "tar", "faults": []}
        writer.finish(meta, np.zeros((len(found), 2)), np.zeros((0, 2)))
    return ListFile(path)


def test_an_utterance_takes_at_most_120_bytes_and_nothing_is_lost(tmp_path):
    arrays = made_up()
    mapped = write(tmp_path / "i", arrays)
    assert len(mapped) == 20 and mapped.sizes.sum() == 20_000
    assert (tmp_path / "i").stat().st_size / 20_000 <= 120
    for ours, given in zip(mapped, arrays, strict=True):
        assert (ours.path, ours.kind, ours.keys.tolist()) == (
            given.path,
            "tar",
            given.keys.tolist(),
        )
        for name in ("offsets", "sizes", "durations", "lengths", "turns"):
            one, other = getattr(ours, name), getattr(given, name)
            assert np.array_equal(one, other) and (one is None or one.dtype == other.dtype), name
        for name in column_names():
            assert ours.column(name).tolist() == given.column(name).tolist(), name
    part = mapped[2].select(np.array([5, 0]))
    assert part.keys.tolist() == arrays[2].keys[[5, 0]].tolist()
    assert part.columns["speaker"].tolist() == arrays[2].columns["speaker"][[5, 0]].tolist()


def test_columns_are_mapped_and_not_copied(tmp_path):
    mapped = write(tmp_path / "i", made_up(2))
    first = mapped[0]
    for array in (first.durations, first.keys.blob, first.columns["speaker"].codes):
        assert np.shares_memory(array, mapped.map)


@pytest.mark.parametrize("together", [1, 1500, 10**6])
@pytest.mark.parametrize("where", [{}, {"lang": "zh"}, {"speaker": "speaker-00000007"}])
def test_a_source_is_judged_alike_from_arrays_and_from_the_file(
    tmp_path, monkeypatch, where, together
):
    monkeypatch.setattr(stretch, "ROWS", together)
    arrays = made_up(5)
    source = SourceConfig("a", "a.list", tasks={"asr": 1.0, "ser": 0.5}, where=where)
    limits = (BatchConfig(max_tokens=500), FilterConfig(max_s=15.0))
    pools = [build_pool(source, one, *limits) for one in (arrays, write(tmp_path / "i", arrays))]
    one, other = pools
    for name in ("shard", "row", "seconds", "frames", "eligible", "tokens", "recordings"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.dropped == other.dropped and one.restricted == other.restricted and one.dropped


def test_a_value_that_no_row_has_selects_none(tmp_path):
    mapped = write(tmp_path / "i", made_up(1))
    assert not mapped[0].column("lang").equal("xx").any()
    assert mapped[0].column("lang").equal("zh").all()


def look(path, queue):
    """What another process sees: keys, and the inodes of the files that it maps."""
    found = load_list(path, Counter())
    maps = Path("/proc/self/maps").read_text().splitlines()
    inodes = {int(line.split()[4]) for line in maps}
    queue.put(([key for index in found for key in index.keys], inodes))


def test_two_processes_map_one_file_and_the_second_scans_nothing(tmp_path, scans):
    path = make_list(tmp_path / "d")
    expected = keys_of(path)
    assert len(scans()) == 3
    queue = FORK.SimpleQueue()
    process = FORK.Process(target=look, args=(path, queue))
    process.start()
    keys, inodes = queue.get()
    process.join()
    assert keys == expected and len(scans()) == 3
    assert file_of(path).stat().st_ino in inodes
    shutil.rmtree(tmp_path / "d" / "none", ignore_errors=True)
    for stored in (tmp_path / "d").glob("*.npz"):
        stored.unlink()
    assert keys_of(path) == expected and len(scans()) == 3, "the file of the list says it all"


def test_processes_that_start_together_scan_each_shard_once(tmp_path, scans):
    path = make_list(tmp_path / "d", shards=4)
    queue = FORK.SimpleQueue()
    ranks = [FORK.Process(target=look, args=(path, queue)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    seen = [queue.get() for _ in ranks]
    for rank in ranks:
        rank.join()
    assert sorted(scans()) == [f"{tmp_path}/d/{number}.tar" for number in range(4)]
    inode = file_of(path).stat().st_ino
    assert all(keys == seen[0][0] and inode in inodes for keys, inodes in seen)
    assert not list((tmp_path / "d").glob("*.lock"))


def copy_of(folder, target):
    """Copy shards and indices as ``cp`` does: with the time of copying."""
    target.mkdir()
    paths = []
    for file in sorted(folder.iterdir()):
        if not file.name.startswith("data.list"):
            shutil.copyfile(file, target / file.name)
            os.utime(target / file.name, (1, 1))
        if file.suffix == ".tar":
            paths.append(target / file.name)
    return list_of(target, paths)


def test_a_copy_without_times_is_not_scanned_again(tmp_path, scans, capsys):
    expected = keys_of(make_list(tmp_path / "d"))
    path = copy_of(tmp_path / "d", tmp_path / "copy")
    capsys.readouterr()
    assert keys_of(path) == expected and len(scans()) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rows", [1, 40])
def test_shards_changed_behind_their_indices_are_told_and_scanned(tmp_path, scans, capsys, rows):
    keys_of(make_list(tmp_path / "d", each=rows))
    path = copy_of(tmp_path / "d", tmp_path / "copy")
    # one with as many bytes as before, one with more
    make_tar(tmp_path / "copy/1.tar", [f"n1.{row}" for row in range(rows)])
    make_tar(tmp_path / "copy/2.tar", [f"n2.{row}" for row in range(rows + 40)])
    (tmp_path / "copy/0.tar.index.npz").unlink()
    same = [(folder / "1.tar").stat().st_size for folder in (tmp_path / "d", tmp_path / "copy")]
    assert same[0] == same[1]
    capsys.readouterr()
    keys = keys_of(path)
    assert [key for key in keys if key[0] == "n"][:rows] == [f"n1.{row}" for row in range(rows)]
    assert len(scans()) == 6
    told = capsys.readouterr().err
    assert "of 3 indices 2 were stale" in told and "1 were missing; 3 shards were scanned" in told
    assert keys_of(path) == keys and len(scans()) == 6


def test_the_probes_go_to_the_end_of_a_shard(tmp_path, scans):
    """Only the last utterance is another, and nothing before has moved."""
    keys_of(make_list(tmp_path / "d", shards=1, each=40))
    path = copy_of(tmp_path / "d", tmp_path / "copy")
    make_tar(tmp_path / "copy/0.tar", [*(f"s0.{row}" for row in range(39)), "n0.39"])
    assert keys_of(path)[-1] == "n0.39" and len(scans()) == 2


def test_a_long_or_hashed_name_is_known_again(tmp_path, scans):
    (tmp_path / "d").mkdir()
    name = "长" * 120
    path = list_of(tmp_path / "d", [make_tar(tmp_path / "d/0.tar", [name, "b"])])
    assert keys_of(path) == [name, "b"]
    assert keys_of(copy_of(tmp_path / "d", tmp_path / "copy")) == [name, "b"]
    assert len(scans()) == 1


def test_indices_go_to_the_named_folder_where_none_can_lie_beside(
    tmp_path, scans, monkeypatch, capsys
):
    path = make_list(tmp_path / "d")
    for number in range(3):
        # a folder of that name: nothing can be written there, whoever runs this
        (tmp_path / f"d/{number}.tar.index.npz").mkdir()
    monkeypatch.setenv(shard_index.FOLDER, str(tmp_path / "indices"))
    expected = keys_of(path)
    assert len(scans()) == 3 and not list((tmp_path / "d").glob("*.bin"))
    assert len(list((tmp_path / "indices").glob("*.npz"))) == 3
    file_of(path).unlink()
    capsys.readouterr()
    assert keys_of(path) == expected and len(scans()) == 3
    assert capsys.readouterr().err == ""


def test_where_nothing_can_be_kept_that_is_said(tmp_path, monkeypatch, capsys):
    path = make_list(tmp_path / "d", shards=1)
    monkeypatch.setattr(indices.os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert keys_of(path) == ["s0.0", "s0.1"]
    told = capsys.readouterr().err
    assert "cannot be kept" in told and shard_index.FOLDER in told
    assert sorted(file.name for file in (tmp_path / "d").iterdir()) == ["0.tar", "data.list"]


def test_a_damaged_file_of_a_list_is_made_anew(tmp_path, scans):
    path = make_list(tmp_path / "d")
    expected = keys_of(path)
    whole = file_of(path).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        file_of(path).write_bytes(whole[:size])
        assert open_file(file_of(path)) is None
        assert keys_of(path) == expected
    # as another version would have written it
    file_of(path).write_bytes(whole.replace(b'"version": 1', b'"version": 0'))
    assert open_file(file_of(path)) is None and keys_of(path) == expected
    assert len(scans()) == 3 and file_of(path).read_bytes() == whole


def test_a_list_that_has_grown_is_made_anew(tmp_path, scans):
    path = make_list(tmp_path / "d")
    keys_of(path)
    more = make_tar(tmp_path / "d/9.tar", ["late"])
    with open(path, "a") as out:
        out.write(more + "\n")
    assert keys_of(path)[-1] == "late" and scans()[3:] == [more]


def test_a_shard_that_stands_twice_counts_once(tmp_path):
    path = make_list(tmp_path / "d", shards=2)
    first, second = Path(path).read_text().split()
    twice = list_of(tmp_path / "d", [first, second, first])
    for _ in range(2):
        dropped = Dropped()
        assert keys_of(twice, dropped) == ["s0.0", "s0.1", "s1.0", "s1.1"]
        assert dropped.pairs == [("s0.0", "duplicate key"), ("s0.1", "duplicate key")]


def test_shards_are_read_by_several_processes_in_their_order(tmp_path):
    path = make_list(tmp_path / "d", shards=5)
    jobs = [*enumerate(Path(path).read_text().split())]
    read = partial(list_parts._read_shard, tmp_path)
    alone = [*list_parts.in_processes(read, jobs, 1)]
    together = [*list_parts.in_processes(read, jobs, 2)]
    assert [part.shard for part in together] == [0, 1, 2, 3, 4]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.hashes, other.hashes)
        assert np.array_equal(one.block.parts["blob"], other.block.parts["blob"])


def test_a_killed_process_is_told(tmp_path):
    with pytest.raises(ValueError, match="was killed.*run again"):
        [*list_parts.in_processes(os._exit, [3, 3], 2)]


def raw_list(folder, count=3):
    folder.mkdir(exist_ok=True)
    rows = [{"key": f"k{row}", "wav": "a.wav", "duration": 1.0} for row in range(count)]
    path = folder / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_copied_raw_list_is_not_scanned_again(tmp_path, monkeypatch):
    path = raw_list(tmp_path / "r")
    assert keys_of(path) == ["k0", "k1", "k2"]
    os.utime(path, (1, 1))
    monkeypatch.setattr(list_parts, "scan_raw", None)
    assert keys_of(path) == ["k0", "k1", "k2"]
    monkeypatch.setattr(list_parts, "hash_of", None)
    assert keys_of(path) == ["k0", "k1", "k2"], "its new time was not kept"


def test_a_raw_list_changed_within_its_size_is_scanned_again(tmp_path):
    path = raw_list(tmp_path / "r")
    keys_of(path)
    Path(path).write_text(Path(path).read_text().replace('"k1"', '"n1"'))
    os.utime(path, (1, 1))
    assert keys_of(path) == ["k0", "n1", "k2"]


def test_the_index_of_a_raw_list_from_an_earlier_version_is_read(tmp_path, monkeypatch):
    path = raw_list(tmp_path / "r")
    index, faults, _ = list_parts.scan_raw(path)
    indices.save(index, faults, indices.stamp_of(path))
    monkeypatch.setattr(list_parts, "scan_raw", None)
    assert keys_of(path) == ["k0", "k1", "k2"]


def test_a_lock_that_cannot_be_had_lets_everyone_in(tmp_path):
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "x"):
        entered = True
    assert entered
    with locked(tmp_path / "x"):
        assert (tmp_path / "x.lock").exists()
    assert not (tmp_path / "x.lock").exists()

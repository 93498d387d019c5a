"""States on disk: found by audio and recipe, whole or not at all, never more than the disk holds."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from wenet_osum.dataset import states
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.states import Encoded, Layout, PartWriter, StateStore


@pytest.fixture
def store(tmp_path):
    """An empty store of width 4."""
    return opened(tmp_path)


def opened(root, key=None, dtype="float32", variants=1, recipe=""):
    made = StateStore(root, key or {"weights": "a"}, Layout(1, 4, dtype), variants, recipe)
    made.make_folder()
    return made


def rows(count, value=1.0):
    return np.full((count, 4), value, dtype=np.float32)


def kept(count, value=1.0):
    return Encoded(rows(count, value), count - 1, 0.5, 0.25, 2.0)


def write(store, *items):
    writer = PartWriter(store)
    for digest, encoded in items:
        writer.add(digest, encoded)
    writer.close()


def test_what_is_written_is_read_from_any_part(store, tmp_path):
    names = [store.digest(bytes([n])) for n in range(5)]
    write(store, *((names[n], kept(n + 2, n)) for n in range(3)))
    write(store, (names[3], kept(9, 3)))
    assert names[0] not in store, "a store shows what was there when it was read"
    store.refresh()
    assert len(store) == 4 and names[4] not in store
    for n, count in enumerate((2, 3, 4, 9)):
        found = store.read(names[n])
        assert np.array_equal(found.states, rows(count, n)) and found.states.dtype == np.float32
        assert found[1:] == (count - 1, 0.5, 0.25, 2.0)
    with pytest.raises(Drop, match="states: not on disk"):
        store.read(names[4])


def test_another_key_or_dtype_is_another_folder(store, tmp_path):
    write(store, (store.digest(b"a"), kept(2)))
    assert len(opened(tmp_path)) == 1
    assert len(opened(tmp_path, {"weights": "b"})) == 0
    assert len(opened(tmp_path, dtype="float16")) == 0
    assert '"weights": "a"' in (store.folder / "key.json").read_text()


def test_names_depend_on_audio_and_on_what_is_drawn(store, tmp_path):
    assert store.digest(b"a") != store.digest(b"b")
    assert store.digest(b"a", "k", 1) == store.digest(b"a"), "nothing is drawn"
    drawn, other = opened(tmp_path, variants=3, recipe="x"), opened(tmp_path, variants=3, recipe="y")
    names = {store.digest(b"a"), *(drawn.digest(b"a", key, n) for key in "kl" for n in (0, 1, 2))}
    assert len(names) == 7 and other.digest(b"a", "k", 1) not in names
    assert [drawn.variant(epoch, 0) for epoch in range(4)] == [0, 1, 2, 0]
    assert drawn.variant(1, 1) == 2, "a further draw in an epoch hears the next"


def test_a_writer_that_dies_leaves_nothing_to_be_read_and_its_rest_goes(store, tmp_path):
    writer = PartWriter(store)
    writer.add(store.digest(b"a"), kept(2))
    (left,) = store.folder.glob("*.tmp")
    np.savez(left / "index.npz", digests=np.zeros((1, 2), dtype=np.uint64))  # died before the name
    store.refresh()
    assert len(store) == 0
    store.make_folder()
    assert left.exists(), "it may be at work"
    for path in (left, *left.iterdir()):
        os.utime(path, (1, 1))
    store.make_folder()
    assert not left.exists()


def test_two_writers_of_one_folder(store, tmp_path):
    """The same utterance twice is read once; another process's parts are seen after ``refresh``."""
    second = opened(tmp_path)
    one, other = PartWriter(store), PartWriter(second)
    for writer in (one, other):
        writer.add(store.digest(b"a"), kept(3, 7))
    other.add(store.digest(b"b"), kept(2, 8))
    one.close()
    other.close()
    store.refresh()
    assert store.read(store.digest(b"a")).states[0, 0] == 7
    assert store.read(store.digest(b"b")).states[0, 0] == 8


def test_a_disk_without_room_is_refused_before_anything_is_written(store, monkeypatch):
    needed = store.layout.bytes_of(np.array([1.0, 0.5]))
    assert needed == (50 + 25) * 4 * 4
    assert "in " + str(store.folder) in store.check_room(needed)
    full = shutil._ntuple_diskusage(10**9, 10**9, 1199)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ValueError, match="needs 1.2e-06 GB .* where 1.2e-06 GB are free; make room, set cache.dir"):
        store.check_room(needed)


def test_a_disk_that_fills_meanwhile_keeps_the_parts_before(store, monkeypatch):
    write(store, (store.digest(b"a"), kept(2)))
    writer = PartWriter(store)
    writer.add(store.digest(b"b"), kept(2))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(states.os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device.*what was written before is kept"):
        writer.close()
    store.refresh()
    assert len(store) == 1 and not [*store.folder.glob("*.tmp")]


def test_states_that_float16_cannot_hold_are_refused(tmp_path):
    store = opened(tmp_path, dtype="float16")
    write(store, (store.digest(b"a"), kept(2, 60000.0)))
    with pytest.raises(ValueError, match="size 7e[+]04 does not fit float16; set cache.dtype: float32"):
        PartWriter(store).add(store.digest(b"b"), kept(2, 70000.0))


def test_silence_behind_the_speech_counts_on_disk():
    layout = Layout(1, 4, "float16", min_rows=100)
    assert layout.bytes_of(np.array([1.0, 4.0])) == (100 + 200) * 4 * 2

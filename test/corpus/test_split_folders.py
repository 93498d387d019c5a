"""The manifests of a prepared corpus, split by split."""

import pytest

from wenet_osum.corpus.split_folders import split_pairs


def test_each_split_of_a_folder_and_a_file_as_it_is(tmp_path):
    for name in ("train", "dev", "text"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("train", "dev"):
        (tmp_path / "data" / name / "manifest.jsonl").write_text("")
    out = tmp_path / "out"
    pairs = split_pairs(tmp_path / "data", out)
    assert [target for _, target in pairs] == [out / "dev/manifest.jsonl", out / "train/manifest.jsonl"]
    file = tmp_path / "data/dev/manifest.jsonl"
    assert split_pairs(file, out) == [(file, out)]


def test_a_folder_without_splits_is_told(tmp_path):
    with pytest.raises(ValueError, match="no SPLIT/manifest.jsonl in it"):
        split_pairs(tmp_path, tmp_path)

"""A spool of a test's own."""

from __future__ import annotations

import pytest

from wenet_osum.dataset import spool


@pytest.fixture
def own_spool(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    spool.hold.cache_clear()
    yield tmp_path / "tmp"
    spool.hold.cache_clear()

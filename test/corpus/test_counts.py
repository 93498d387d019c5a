"""Official figures against what was found."""

from __future__ import annotations

import pytest

from wenet_osum.corpus.counts import check_count


@pytest.mark.parametrize(
    ("found", "line"),
    [(300, "fsdd test: 300, complete"), (250, "fsdd test: subset: 250 of 300"), (301, "fsdd test: 301, more than the official 300")],
)
def test_line(found, line):
    assert check_count("fsdd test", found, 300) == line


@pytest.mark.parametrize("found", [250, 301])
def test_strict_stops(found):
    with pytest.raises(ValueError, match="--strict_counts"):
        check_count("fsdd test", found, 300, strict=True)


def test_strict_lets_the_complete_corpus_pass():
    assert check_count("fsdd test", 300, 300, strict=True) == "fsdd test: 300, complete"


def test_nothing_always_stops():
    with pytest.raises(ValueError, match="nothing found, 300 expected"):
        check_count("fsdd test", 0, 300)

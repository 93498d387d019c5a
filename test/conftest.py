"""Order of the tests: the slow ones run last, so that a broken unit shows first."""

from __future__ import annotations


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)

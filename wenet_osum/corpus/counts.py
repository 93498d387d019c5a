"""Is the corpus all there? Its official figures against what was found."""

from __future__ import annotations


def check_count(name: str, found: int, official: int, strict: bool = False) -> str:
    """One line about ``name``, e.g. "fsdd test: subset: 250 of 300".

    Raises ValueError when nothing was found, and with ``strict`` when the figures differ.
    """
    if found == 0:
        raise ValueError(f"{name}: nothing found, {official} expected; does --data_dir point at the folder of the official download?")
    if found == official:
        return f"{name}: {found}, complete"
    line = f"{name}: subset: {found} of {official}" if found < official else f"{name}: {found}, more than the official {official}"
    if strict:
        raise ValueError(f"{line}; --strict_counts wants the official figure: download the rest, or leave the option out")
    return line

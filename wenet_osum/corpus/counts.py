"""Check whether a corpus is complete: its official counts against what was found."""

from __future__ import annotations


def check_count(name: str, found: int, official: int, strict: bool = False) -> str:
    """Return one line about ``name``, e.g. "fsdd test: subset: 250 of 300".

    Raises ValueError when nothing was found, and with ``strict`` when the counts differ.
    """
    if found == 0:
        advice = "does --data_dir point at the folder of the official download?"
        raise ValueError(f"{name}: nothing found, {official} expected; {advice}")
    if found == official:
        return f"{name}: {found}, complete"

    if found < official:
        line = f"{name}: subset: {found} of {official}"
    else:
        line = f"{name}: {found}, more than the official {official}"
    if strict:
        rule = "--strict_counts wants the official figure"
        raise ValueError(f"{line}; {rule}: download the rest, or leave the option out")
    return line

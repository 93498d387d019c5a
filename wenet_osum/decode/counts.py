"""Write what a decoding run counted as text: flags, failures and the rate of speech tokens."""

from __future__ import annotations

from collections import Counter

# Names of two counts: LLM positions that speech took, and seconds of speech.
SPEECH_TOKENS, SPEECH_S = "speech tokens", "speech seconds"
# Counts that other lines report.
OWN_LINES = ("steps", "ties", "tie", "errors", SPEECH_TOKENS, SPEECH_S)


def counted(counts: Counter) -> str:
    """Return the flags and failures of a run with their numbers, or an empty text."""
    notes = []
    for name, times in sorted(counts.items()):
        if not times:
            continue
        if name not in OWN_LINES:
            notes.append(f"{name} {times}")
    return ", ".join(notes)


def speech_rate(counts: Counter) -> str:
    """Say how many LLM positions the speech took per second, or return an empty text."""
    seconds = counts[SPEECH_S]
    if not seconds:
        return ""
    tokens = counts[SPEECH_TOKENS]
    rate = tokens / seconds
    listened = f"{tokens} LLM tokens for {seconds:.0f} s"
    return f"speech: {listened}, {rate:.2f} per second"

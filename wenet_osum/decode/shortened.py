"""Recordings that end before their list, or their own header, says."""

from __future__ import annotations

from collections import Counter

from wenet_osum.decode.jobs import Job
from wenet_osum.records import Hypothesis

# The flag of their answers.
SHORTENED = "shortened"
# Less is the rounding of durations and what an MP3 encoder adds.
SHORTER_S = 0.1


def flag_shortened(
    group: list[Job], answers: list[tuple[int, Hypothesis]], counts: Counter
) -> None:
    """Flag and count the answers to recordings that are shorter than was said.

    A segment may end behind its recording, and an MP3 may be cut: what is there is decoded.
    """
    promised = {job.index: job.seconds for job in group}
    for index, answer in answers:
        if answer.duration is None:
            continue
        if answer.duration < promised[index] - SHORTER_S:
            answer.flags.append(SHORTENED)
            counts[SHORTENED] += 1

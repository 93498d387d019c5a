"""The page of the data path lists the steps of the sound in the order in which they are taken."""

from __future__ import annotations

import inspect
import re

from wenet_osum.dataset import augment, dataset, sample

STEPS = ["decode", "speed", "reverberate", "add_noise", "apply_effects", "gain", "log_mel", "draw_masks", "apply_masks"]  # fmt: skip


def called(function):
    """Names that a function calls, in the order of its lines."""
    names = re.findall(r"(\w+)\(", inspect.getsource(function))
    return [name for name in dict.fromkeys(names) if name in STEPS]


def test_the_page_lists_the_steps_in_their_order():
    section = dataset.__doc__.split("goes through these steps", 1)[1]
    listed = re.findall(r"^    (\w+) ", section, re.MULTILINE)
    assert listed == STEPS
    taken = called(sample.make_sample) + called(augment.augment)
    sound = called(sample._sound) + called(sample._masks)
    assert [step for step in STEPS if step in taken] == taken
    assert set(taken + sound) == set(STEPS)

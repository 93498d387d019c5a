"""Invented speakers: gender and age through pitch, formants, tempo, tremor and breath.

The differences are exaggerated: this is a toy. Every number of a voice is taken from a row of a
hundred steps; steps that end in 8 belong to dev, those that end in 9 to test and the others to
train, so that no two splits share a value within a gender and age, let alone a voice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LAST_DIGITS = {"train": range(8), "dev": (8,), "test": (9,)}
GROUPS = [(gender, age) for age in ("child", "adult", "old") for gender in ("female", "male")]
# Pitch and formants tell gender, the resampling a child and the tremor tells the old, whatever else
# is varied.
# (gender, age): lowest pitch Hz, formant scale, resampling shift
RANGES = {
    ("male", "adult"): ((82, 104), (0.93, 0.98), (0.96, 1.02)),
    ("female", "adult"): ((182, 204), (1.10, 1.16), (1.00, 1.04)),
    ("male", "child"): ((114, 128), (1.01, 1.06), (1.28, 1.34)),
    ("female", "child"): ((234, 256), (1.15, 1.21), (1.28, 1.34)),
    ("male", "old"): ((86, 108), (0.92, 0.97), (0.92, 0.97)),
    ("female", "old"): ((180, 202), (1.08, 1.14), (0.95, 0.99)),
}


YOUNG = {"tremor_hz": 0.0, "tremor_depth": 0.0, "breath_db": 0.0}


@dataclass(frozen=True)
class Voice:
    """One speaker; speaks both languages."""

    name: str
    gender: str
    age: str
    pitch_hz: float  # lowest pitch of a neutral sentence, before the shift
    range: float  # highest by lowest pitch
    formants: float  # scale of the formants
    shift: float  # resampling: pitch, formants and tempo together
    rate: float  # words per minute in English
    accent: str  # of English
    tremor_hz: float  # of the old; 0 for others
    tremor_depth: float
    breath_db: float  # breath below the voice; of the old

    def setting(self) -> tuple:
        """Return what makes the voice, without its name."""
        values = dict(vars(self))
        del values["name"]
        return tuple(values.values())


# Words a minute in English: the old speak slower, children slower still.
RATES = {"old": (204, 214), "adult": (238, 252), "child": (192, 202)}


def old_age(value: Callable[[float, float], float]) -> dict[str, float]:
    """Draw how much an old voice trembles and breathes."""
    return {
        "tremor_hz": value(5.0, 6.5),
        "tremor_depth": value(0.4, 0.55),
        "breath_db": value(13, 17),
    }


def make_voices(
    split: str, per_group: int, rng: np.random.Generator
) -> dict[tuple[str, str], list[Voice]]:
    """Make ``per_group`` speakers of each gender and age, with values only this split has."""
    digits = LAST_DIGITS[split]
    steps = np.array([step for step in range(100) if step % 10 in digits])

    # Values of different splits are never the same, for they take different steps.
    def value(low: float, high: float) -> float:
        step = rng.choice(steps)
        drawn = low + (high - low) * step / 99
        return round(float(drawn), 6)

    voices: dict[tuple[str, str], list[Voice]] = {}
    for gender, age in GROUPS:
        pitch, formants, shift = RANGES[gender, age]
        voices[gender, age] = []
        for number in range(per_group):
            # The order of the draws is that of the published corpus.
            voice = Voice(
                name=f"{split}_{gender}_{age}_{number:02d}",
                gender=gender,
                age=age,
                pitch_hz=value(*pitch),
                range=value(1.28, 1.42),
                formants=value(*formants),
                shift=value(*shift),
                rate=value(*RATES[age]),
                accent=str(rng.choice(["en-us", "en-us", "en-us", "en-gb"])),
                **(old_age(value) if age == "old" else YOUNG),
            )
            voices[gender, age].append(voice)
    return voices

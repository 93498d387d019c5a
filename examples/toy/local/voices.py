"""Invented speakers: gender and age through pitch, formants, tempo, tremor and breath.

The differences are exaggerated: this is a toy. Every number of a voice is taken from a row of a
hundred steps; steps that end in 8 belong to dev, those that end in 9 to test and the others to
train, so that no two splits share a value within a gender and age, let alone a voice.
"""

from __future__ import annotations

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
        """What makes the voice, without its name."""
        return tuple(value for key, value in vars(self).items() if key != "name")


def make_voices(
    split: str, per_group: int, rng: np.random.Generator
) -> dict[tuple[str, str], list[Voice]]:
    """``per_group`` speakers of each gender and age, with values only this split has."""
    steps = np.array([step for step in range(100) if step % 10 in LAST_DIGITS[split]])

    def value(low: float, high: float) -> float:
        return round(float(low + (high - low) * rng.choice(steps) / 99), 6)

    voices: dict[tuple[str, str], list[Voice]] = {}
    for gender, age in GROUPS:
        pitch, formants, shift = RANGES[gender, age]
        for i in range(per_group):
            voice = Voice(
                name=f"{split}_{gender}_{age}_{i:02d}",
                gender=gender,
                age=age,
                pitch_hz=value(*pitch),
                range=value(1.28, 1.42),
                formants=value(*formants),
                shift=value(*shift),
                rate=value(204, 214)
                if age == "old"
                else value(238, 252)
                if age == "adult"
                else value(192, 202),
                accent=str(rng.choice(["en-us", "en-us", "en-us", "en-gb"])),
                tremor_hz=value(5.0, 6.5) if age == "old" else 0.0,
                tremor_depth=value(0.4, 0.55) if age == "old" else 0.0,
                breath_db=value(13, 17) if age == "old" else 0.0,
            )
            voices.setdefault((gender, age), []).append(voice)
    return voices

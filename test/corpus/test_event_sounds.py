from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.corpus import event_sounds
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.tasks import ved


def _profile(sound: np.ndarray) -> np.ndarray:
    """Log power in 20 bands and how it moves through ten slices of time."""
    power = [np.abs(np.fft.rfft(part, 2048)) ** 2 for part in np.array_split(sound, 10)]
    bands = np.array([[band.mean() for band in np.array_split(p[8:1000], 20)] for p in power])
    return np.log10(bands + 1e-3 * bands.max()).ravel()


def test_there_is_a_sound_for_every_event_label():
    assert set(event_sounds.SOUNDS) == set(ved.TASK.fields[-1].labels.names)


@pytest.mark.parametrize("label", list(event_sounds.SOUNDS))
def test_sound_is_short_full_scale_and_varies(label):
    first, second = (event_sounds.make(label, np.random.default_rng(seed)) for seed in (1, 2))
    assert first.dtype == np.float32 and np.abs(first).max() == pytest.approx(1)
    assert 0.12 < len(first) / SAMPLE_RATE < 0.7
    assert len(first) != len(second) or not np.allclose(first, second)
    assert np.array_equal(first, event_sounds.make(label, np.random.default_rng(1)))


def test_sounds_are_told_apart():
    def profiles(seeds: range) -> dict[str, np.ndarray]:
        return {label: np.array([_profile(event_sounds.make(label, np.random.default_rng(s))) for s in seeds]) for label in event_sounds.SOUNDS}

    centers = {label: rows.mean(0) for label, rows in profiles(range(20)).items()}
    right = [min(centers, key=lambda k: np.sum((centers[k] - row) ** 2)) == label for label, rows in profiles(range(50, 60)).items() for row in rows]
    assert np.mean(right) > 0.9


def test_unknown_sound():
    with pytest.raises(ValueError, match="did you mean 'sneeze'"):
        event_sounds.make("sneezing", np.random.default_rng(0))

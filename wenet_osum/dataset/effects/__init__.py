"""Effects on audio, one per file, found by name: noise, reverb, codec and others.

A module has a frozen dataclass ``Effect`` whose fields are the effect's settings, ranges as
(low, high) drawn from evenly. Its ``__call__(audio, rng)`` returns changed audio of the same
length with every sound where it was, so that word times hold. Audio is (samples,) float32 at
16 kHz.

The same effects serve training (``augment.effects`` of a run's yaml), ``tools/augment.py`` and
``tools/make_robust_lists.py``.
"""

"""Corpora in and out: synthesised speech and sounds, word times, mixing of events and noise."""

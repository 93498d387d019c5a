"""Corpora in and out: synthesized speech and sounds, word times, mixing of events and noise."""

"""Training: the loop, and around it rehearsal, sanity checks, checkpoints and exact resume."""

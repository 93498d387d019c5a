"""Training: the loop and what keeps it honest: rehearsal, sanity checks, checkpoints, exact resume."""

"""Training: the loop and what keeps it honest: rehearsal, gates, checkpoints, exact resume."""

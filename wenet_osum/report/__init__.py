"""What was found, for people: tables in markdown, plots, and HTML pages that need no network.

Nothing is computed here that a score rests on (``score/``), and nothing here loads torch.
"""

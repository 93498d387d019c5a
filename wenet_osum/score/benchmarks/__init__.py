"""Answer files of other evaluation toolkits, a file each, found by name.

``read(path, name, dropped)`` yields ``Answered`` (_sets.py) and counts what it leaves out by
reason; ``name`` is that of the data set where the file does not tell it. ``RULE`` is the rule by
which the toolkit finds the label in a free answer.
"""

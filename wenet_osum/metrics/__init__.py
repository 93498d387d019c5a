"""Metrics: a file for each, found by the name that a task's field gives. Nothing else lies here.

A file holds ``figures(field, pairs, options) -> list[Figure]`` (``score/figure.py``). Every Figure names
its ``records.Metric``: title, unit, direction, and which of its counts a report shows.
"""

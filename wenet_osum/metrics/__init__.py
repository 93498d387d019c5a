"""Metrics: each file is one, found by the name that a task's field gives. Nothing else lies here.

A file holds ``compute(field, pairs, options) -> list[MetricSums]`` (``score/metric_sums.py``).
Every MetricSums names its ``records.Metric``: title, unit, direction, and which of its counts a
report shows.

A file with ``applies(field, pairs) -> bool`` besides is computed beside the metric that a field
names, wherever it applies: where references have hotwords, say.
"""

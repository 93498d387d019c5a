"""The one entry of scoring: a task, its references and its hypotheses become Scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wenet_osum import lookup, tasks
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.score import resampling
from wenet_osum.score.bootstrap import Difference, estimate, paired
from wenet_osum.score.metric_sums import MetricSums, Options, Pair
from wenet_osum.tasks import Field, Task

if TYPE_CHECKING:
    from wenet_osum.score.judge import Judge

METRICS = "wenet_osum.metrics"
# Most unknown labels that a message names.
SHOWN_LABELS = 10
# Most extra keys that a report names.
SHOWN_KEYS = 5
# Field, metric and subset.
Name = tuple[str, str, str]


def score_task(
    task: Task,
    references: Sequence[Utterance],
    hypotheses: dict[str, Hypothesis],
    normalizer: str = "none",
    *,
    resample: str = "utterance",
    resamples: int = 1000,
    seed: int = 777,
    worst: int = 20,
    train: Sequence[Utterance] = (),
    judge: Judge | None = None,
) -> list[Score]:
    """Score every field of a task by the metric it names.

    Pairs are made by key. A reference without an answer counts as wrong or deleted; a reference
    without the field is left out and counted in ``detail["left_out"]``; answers without a reference
    are counted in ``detail["extra"]``. ``train`` adds the text-only baseline, ``judge`` its mean
    verdict on replies.

    ``resample`` says what the bootstrap of the intervals draws: ``utterance``, or ``speaker``, all
    utterances of a speaker together. ``detail["resampled"]`` counts what it draws from, and the
    utterances without a speaker, each of which is drawn by itself.

    Raises ValueError for double reference keys, for labels that their set does not know, for
    hypotheses of another list or task, for an unknown ``resample``, when no reference can be
    scored, and when the judge cannot be asked.
    """
    resampling.check_unit(resample)
    speakers = resampling.speakers_of(references)
    options = Options(normalizer, resamples, seed, worst, train, judge)
    scores = []
    for field, sums in _compute_all(task, references, hypotheses, options):
        clusters = resampling.clusters_of(sums.keys, speakers, resample)
        found = estimate(
            sums.columns,
            sums.statistic,
            resamples,
            seed,
            sums.trials(clusters.of_rows),
            _drawn(clusters),
        )
        score = Score(
            task=task.name,
            metric=sums.metric.name,
            value=found.value,
            low=found.low,
            high=found.high,
            count=int(sums.count),
            utterances=len(sums.columns),
            subset=sums.subset,
            detail={"field": field.name, resampling.DETAIL: clusters.told(), **sums.detail},
            about=sums.metric,
        )
        scores.append(score)
    return scores


def compare_task(
    task: Task,
    references: Sequence[Utterance],
    first: dict[str, Hypothesis],
    second: dict[str, Hypothesis],
    normalizer: str = "none",
    *,
    resample: str = "utterance",
    resamples: int = 1000,
    seed: int = 777,
    judge: Judge | None = None,
) -> dict[Name, Difference]:
    """Compare two systems on the same references by a paired bootstrap.

    Returns (field, metric, subset) → value of the first minus that of the second. A metric that
    rests on other utterances in one of the systems (calibration without probabilities) is left out.
    With ``resample="speaker"`` whole speakers are drawn, the same for both systems. Raises
    ValueError as ``score_task`` does.
    """
    resampling.check_unit(resample)
    speakers = resampling.speakers_of(references)
    options = Options(normalizer, resamples, seed, judge=judge)
    of_first = _by_name(_compute_all(task, references, first, options))
    of_second = _by_name(_compute_all(task, references, second, options))
    found = {}
    for name, a in of_first.items():
        b = of_second.get(name)
        if b is None or not a.keys or a.keys != b.keys:
            continue
        clusters = resampling.clusters_of(a.keys, speakers, resample)
        trials = min(a.trials(clusters.of_rows), b.trials(clusters.of_rows))
        found[name] = paired(
            a.columns,
            b.columns,
            a.statistic,
            resamples,
            seed,
            trials,
            _drawn(clusters),
        )
    return found


def _drawn(clusters: resampling.Clusters) -> np.ndarray | None:
    """Return the clusters that the bootstrap draws; None where it draws single utterances."""
    return None if clusters.unit == "utterance" else clusters.of_rows


def _by_name(computed: list[tuple[Field, MetricSums]]) -> dict[Name, MetricSums]:
    found = {}
    for field, sums in computed:
        found[field.name, sums.metric.name, sums.subset] = sums
    return found


def _compute_all(
    task: Task,
    references: Sequence[Utterance],
    hypotheses: dict[str, Hypothesis],
    options: Options,
) -> list[tuple[Field, MetricSums]]:
    """Check references and hypotheses, and compute the metrics of every field that occurs."""
    _check_pairs(references, hypotheses)
    _check_labels(task, references)
    fields, silent = _occurring(task, references)
    extra = hypotheses.keys() - {utterance.key for utterance in references}
    found = []
    for field in fields:
        _check_task(field, hypotheses)
        pairs = []
        for utterance in references:
            if field.present(utterance):
                pairs.append(Pair(utterance, hypotheses.get(utterance.key)))
        left_out = len(references) - len(pairs)
        beside = _beside(left_out, sorted(extra), silent)

        computed = []
        for metric in metrics_of(field):
            own = metric.compute(field, pairs, options)
            # Beside another answer, one line on the transcript is enough: the one over all.
            if len(task.fields) > 1 and field.kind == "transcript":
                for sums in own:
                    sums.detail["minor"] = sums is not own[-1]
            computed += own
        for metric in _further_metrics(field, pairs):
            computed += metric.compute(field, pairs, options)
        for sums in computed:
            sums.keys = _keys(sums, pairs)
            sums.detail = {**beside, **sums.detail}
            found.append((field, sums))
    return found


def _further_metrics(field: Field, pairs: list[Pair]) -> list[Any]:
    """Load the metrics beside the one that a field names, which say themselves that they apply."""
    found = []
    for name in lookup.names(METRICS):
        module = lookup.load(METRICS, name)
        applies = getattr(module, "applies", None)
        if applies and applies(field, pairs):
            found.append(module)
    return found


def _keys(sums: MetricSums, pairs: list[Pair]) -> list[str]:
    """Return the utterance of each row of a metric's columns.

    Raises ValueError when a metric of one's own does not say it.
    """
    keys = sums.keys
    if keys is None:
        keys = [pair.reference.key for pair in pairs]
    if len(keys) != len(sums.columns):
        raise ValueError(
            f"metric {sums.metric.name} has {len(sums.columns)} rows for {len(keys)} utterances; "
            "its MetricSums has to say in keys which utterance each row is of"
        )
    return list(keys)


def _occurring(task: Task, references: Sequence[Utterance]) -> tuple[list[Field], list[str]]:
    """Return the fields that some reference has, and the names of those that none has.

    Raises ValueError when no reference has any.
    """
    fields, silent = [], []
    for field in task.fields:
        if any(field.present(utterance) for utterance in references):
            fields.append(field)
        else:
            silent.append(field.name)
    if not fields:
        attributes = ", ".join(field.attribute for field in task.fields)
        raise ValueError(
            f"no reference of {len(references)} has {attributes}; "
            f"task {task.name} needs one of them"
        )
    return fields, silent


def _beside(left_out: int, extra: list[str], silent: list[str]) -> dict[str, Any]:
    """Collect what every score of a field says of references and answers that it does not use."""
    detail: dict[str, Any] = {"left_out": left_out, "extra": len(extra)}
    if extra:
        detail["extra_keys"] = extra[:SHOWN_KEYS]
    if silent:
        detail["not_in_references"] = silent
    return detail


def metrics_of(field: Field) -> list[Any]:
    """Load the metric files that a field names.

    Raises ValueError when there is none of a name or it has no ``compute``.
    """
    found = []
    for name in field.metrics:
        module = lookup.load(METRICS, name)
        if not hasattr(module, "compute"):
            raise ValueError(
                f"metrics/{name}.py is no metric: it has no function compute(field, pairs, options)"
            )
        found.append(module)
    return found


def _check_pairs(references: Sequence[Utterance], hypotheses: dict[str, Hypothesis]) -> None:
    """Raise ValueError for an empty list, double keys, and hypotheses of another list."""
    if not references:
        raise ValueError(
            "the reference list holds no utterance; check its path, or run the stage that writes it"
        )

    keys = Counter(utterance.key for utterance in references)
    double = [key for key, times in keys.items() if times > 1]
    if double:
        raise ValueError(
            f"reference key {double[0]!r} stands more than once ({len(double)} such keys); "
            "keys must be unique in a list"
        )

    if hypotheses and keys.keys().isdisjoint(hypotheses):
        reference, hypothesis = references[0].key, next(iter(hypotheses))
        raise ValueError(
            "references and hypotheses have no key in common "
            f"(reference {reference!r}, hypothesis {hypothesis!r}); "
            "give the hypotheses of this list"
        )


def _check_labels(task: Task, references: Sequence[Utterance]) -> None:
    """Raise ValueError for labels that the sets do not know.

    Left out in silence, they would make the rest look like the whole.
    """
    for field in task.label_fields:
        unknown = Counter(filter(None, map(field.unknown, references)))
        if not unknown:
            continue
        shown = [f"{label!r} {times}" for label, times in unknown.most_common(SHOWN_LABELS)]
        more = len(unknown) - len(shown)
        others = f" and {more} others" if more else ""
        known = ", ".join(field.labels.names)
        raise ValueError(
            f"{unknown.total()} of {len(references)} references have labels of {field.name} "
            f"that its set does not know: {', '.join(shown)}{others}; "
            f"known: {known}; give --labels with the model's own sets, or "
            "--label_map with the spellings of this test set (null there leaves a label out)"
        )


def _check_task(field: Field, hypotheses: dict[str, Hypothesis]) -> None:
    """Raise ValueError for answers to another question: a wrong file, not wrong answers."""
    tasks_of_answers = {hypothesis.task for hypothesis in hypotheses.values()}
    for text in filter(None, tasks_of_answers):
        # A file of another tool may name the task instead of its tags.
        tags = text if "<" in text else tasks.parse(text).tags
        spaced = tags.upper().replace("><", "> <").split()
        if field.tag not in " ".join(spaced):
            raise ValueError(
                f"hypotheses were made for task {tags}, which does not answer {field.tag} "
                f"({field.name}); give those of this task"
            )

"""The one entry of scoring: a task, its references and its hypotheses in, Scores out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wenet_osum import lookup, tasks
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.score.bootstrap import Difference, estimate, paired
from wenet_osum.score.metric_sums import MetricSums, Options, Pair
from wenet_osum.tasks import Field, Task

if TYPE_CHECKING:
    from wenet_osum.score.judge import Judge

METRICS = "wenet_osum.metrics"
SHOWN_LABELS = 10  # unknown labels that a message names


def score_task(
    task: Task,
    references: Sequence[Utterance],
    hypotheses: dict[str, Hypothesis],
    normalizer: str = "none",
    *,
    resamples: int = 1000,
    seed: int = 777,
    worst: int = 20,
    train: Sequence[Utterance] = (),
    judge: Judge | None = None,
) -> list[Score]:
    """Score every field of a task by the metric it names.

    Pairs are made by key. A reference without an answer counts as wrong or deleted; a reference without the field is left out and
    counted in ``detail["left_out"]``; answers without a reference are counted in ``detail["extra"]``. ``train``
    adds the text-only baseline, ``judge`` a figure on replies. Raises ValueError for double reference
    keys, for labels that their set does not know, for hypotheses of another list or task, when no
    reference can be scored, and when the judge cannot be asked.
    """
    options = Options(normalizer, resamples, seed, worst, train, judge)
    scores = []
    for field, sums in _compute_all(task, references, hypotheses, options):
        found = estimate(sums.columns, sums.statistic, resamples, seed, sums.trials)
        detail = {"field": field.name, **sums.detail}
        sizes = (int(sums.count), len(sums.columns))
        about = sums.metric
        scores.append(Score(task.name, about.name, *found, *sizes, sums.subset, detail, about))
    return scores


def compare_task(
    task: Task,
    references: Sequence[Utterance],
    first: dict[str, Hypothesis],
    second: dict[str, Hypothesis],
    normalizer: str = "none",
    *,
    resamples: int = 1000,
    seed: int = 777,
    judge: Judge | None = None,
) -> dict[tuple[str, str, str], Difference]:
    """Compare two systems on the same references by a paired bootstrap: (field, metric, subset) → first minus second.

    Figures that rest on other utterances in one of the systems (calibration without probabilities) are left out.
    """
    options = Options(normalizer, resamples, seed, judge=judge)
    sides = [{(f.name, x.metric.name, x.subset): x for f, x in _compute_all(task, references, side, options)} for side in (first, second)]
    found = {}
    for name in sides[0].keys() & sides[1].keys():
        a, b = (side[name] for side in sides)
        if a.columns.shape == b.columns.shape and len(a.columns):
            trials = min(a.trials, b.trials)
            found[name] = paired(a.columns, b.columns, a.statistic, resamples, seed, trials)
    return {name: found[name] for name in sides[0] if name in found}


def _compute_all(
    task: Task, references: Sequence[Utterance], hypotheses: dict[str, Hypothesis], options: Options
) -> list[tuple[Field, MetricSums]]:
    _check_pairs(references, hypotheses)
    _check_labels(task, references)
    fields = [f for f in task.fields if any(f.present(u) for u in references)]
    if not fields:
        raise ValueError(f"no reference of {len(references)} has {', '.join(f.attribute for f in task.fields)}; task {task.name} needs one of them")
    silent = [f.name for f in task.fields if f not in fields]
    extra = sorted(hypotheses.keys() - {u.key for u in references})
    found = []
    for field in fields:
        _check_task(field, hypotheses)
        pairs = [Pair(u, hypotheses.get(u.key)) for u in references if field.present(u)]
        beside: dict[str, Any] = {"left_out": len(references) - len(pairs), "extra": len(extra)}
        beside |= {"extra_keys": extra[:5]} if extra else {}
        beside |= {"not_in_references": silent} if silent else {}
        computed = metric_of(field).compute(field, pairs, options)
        for sums in computed:
            sums.detail = {**beside, **sums.detail}
            if len(task.fields) > 1 and field.kind == "transcript":  # beside another answer one line on the transcript is enough
                sums.detail["minor"] = sums is not computed[-1]
            found.append((field, sums))
    return found


def metric_of(field: Field) -> Any:
    """The metric file a field names. Raises ValueError when there is none or it has no ``compute``."""
    module = lookup.load(METRICS, field.metric)
    if not hasattr(module, "compute"):
        raise ValueError(f"metrics/{field.metric}.py is no metric: it has no function compute(field, pairs, options)")
    return module


def _check_pairs(references: Sequence[Utterance], hypotheses: dict[str, Hypothesis]) -> None:
    if not references:
        raise ValueError("the reference list holds no utterance; check its path, or run the stage that writes it")
    double = [key for key, times in Counter(u.key for u in references).items() if times > 1]
    if double:
        raise ValueError(f"reference key {double[0]!r} stands more than once ({len(double)} such keys); keys must be unique in a list")
    if hypotheses and not any(u.key in hypotheses for u in references):
        raise ValueError(
            f"references and hypotheses have no key in common (reference {references[0].key!r}, hypothesis {next(iter(hypotheses))!r}); "
            "give the hypotheses of this list"
        )


def _check_labels(task: Task, references: Sequence[Utterance]) -> None:
    """Refuse labels that the sets do not know: left out, they would make the rest look like the whole."""
    for field in task.label_fields:
        unknown = Counter(filter(None, map(field.unknown, references)))
        if unknown:
            shown = [f"{label!r} {times}" for label, times in unknown.most_common(SHOWN_LABELS)]
            more = len(unknown) - len(shown)
            raise ValueError(
                f"{unknown.total()} of {len(references)} references have labels of {field.name} that its set "
                f"does not know: {', '.join(shown)}{f' and {more} others' if more else ''}; "
                f"known: {', '.join(field.labels.names)}; give --labels with the model's own sets, or "
                "--label_map with the spellings of this test set (null there leaves a label out)"
            )


def _check_task(field: Field, hypotheses: dict[str, Hypothesis]) -> None:
    """Answers to another question are a wrong file, not wrong answers."""
    for tags in {h.task for h in hypotheses.values() if h.task}:
        made_for = tags if "<" in tags else tasks.parse(tags).tags
        if field.tag not in " ".join(made_for.upper().replace("><", "> <").split()):
            raise ValueError(f"hypotheses were made for task {made_for}, which does not answer {field.tag} ({field.name}); give those of this task")

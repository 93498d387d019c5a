"""Turn answers of other toolkits into references and hypotheses of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.benchmarks._sets import TRANSCRIPT, Answered
from wenet_osum.score.free_answers import RULES
from wenet_osum.tasks.base import Field
from wenet_osum.tasks.label_map import LabelMap, fold

# What the scorer says of an answer that is not there.
NO_ANSWER = "the model gave no answer"


@dataclass
class Converted:
    """The answers to one data set."""

    # tags of the field, such as "<EMOTION>"
    task: str
    references: list[Utterance] = field(default_factory=list)
    hypotheses: list[Hypothesis] = field(default_factory=list)
    # label sets by field name, where the labels are not ours
    labels: dict[str, list[str]] = field(default_factory=dict)


def convert(
    answered: Iterable[Answered],
    rule: str,
    mapped: LabelMap | None,
    keep_missing: bool,
    dropped: Counter,
) -> dict[str, Converted]:
    """Sort answers by their data set: its name → references and hypotheses.

    Labels stay as the data set spells them, in a label set of its own, or become ours by a label
    map. ``rule`` finds the label in an answer (``free_answers.RULES``). An answer that is missing
    is an error of the model's, or left out and counted unless ``keep_missing``.

    Raises ValueError for a label that the map does not know.
    """
    by_set: dict[str, list[Answered]] = {}
    for row in answered:
        if row.answer is None and not keep_missing:
            dropped["utterance without an answer"] += 1
            continue
        by_set.setdefault(row.of.name, []).append(row)

    found = {}
    for name, rows in by_set.items():
        asked = rows[0].of.field
        if asked == TRANSCRIPT:
            found[name] = _transcripts(rows)
        else:
            known = tasks.label_fields()[asked]
            found[name] = _labels(rows, known, rule, mapped, dropped)
    return found


def _transcripts(rows: list[Answered]) -> Converted:
    """Make references and hypotheses of recognition."""
    found = Converted(tasks.parse("asr").tags)
    for row in rows:
        lang = row.of.lang
        reference = Utterance(row.key, row.wav, txt=row.reference, lang=lang)
        found.references.append(reference)
        text = row.answer or ""
        hypothesis = Hypothesis(row.key, found.task, text, transcript=row.answer)
        hypothesis = _or_error(hypothesis, row)
        found.hypotheses.append(hypothesis)
    return found


def _labels(
    rows: list[Answered], known: Field, rule: str, mapped: LabelMap | None, dropped: Counter
) -> Converted:
    """Make references and hypotheses of a label field."""
    found = Converted(known.tag)
    spellings = _spellings(rows, known)
    once = dict.fromkeys(spellings.values())
    names = list(once)
    ours: dict[str, str | None] = {name: name for name in names}
    if mapped:
        ours = {name: mapped.label(known.name, name) for name in names}
    else:
        found.labels[known.name] = names
    if rule == "named":
        spellings |= _aliases(names, known)

    find = RULES[rule]
    for row in rows:
        name = spellings[row.reference]
        label = ours[name]
        if label is None:
            dropped[f"label {row.reference!r} that is none of ours"] += 1
            continue
        lang = row.of.lang
        labels = {known.attribute: label}
        reference = Utterance(row.key, row.wav, lang=lang, labels=labels)
        found.references.append(reference)

        text = row.answer or ""
        answered = find(text, spellings, row.options)
        hypothesis = _hypothesis(row, known, ours.get(answered))
        found.hypotheses.append(hypothesis)
    return found


def _spellings(rows: list[Answered], known: Field) -> dict[str, str]:
    """Return every spelling in references and options, with the name of its label.

    A reference that no question offers stands for the option that means the same to us: crying for
    Cry.
    """
    names: dict[str, str] = {}
    for row in rows:
        for option in row.options.values():
            names.setdefault(fold(option), option)
    # Our label → the option that means it.
    meant = {}
    for option in names.values():
        label = known.labels.find(option)
        if label is not None:
            meant[label] = option

    spellings = {}
    for row in rows:
        for option in row.options.values():
            spellings[option] = names[fold(option)]
        label = known.labels.find(row.reference)
        same = meant.get(label, row.reference)
        folded = fold(row.reference)
        spellings[row.reference] = names.setdefault(folded, same)
    return spellings


def _aliases(names: list[str], known: Field) -> dict[str, str]:
    """Return our own spellings of labels, with the one name among ``names`` that means the same."""
    found: dict[str, str] = {}
    meanings = [known.labels.find(name) for name in names]
    for name, label in zip(names, meanings, strict=True):
        alone = meanings.count(label) == 1
        if label is None or not alone:
            continue
        aliases = known.labels.aliases[label]
        for spelling in (label, *aliases):
            found[spelling] = name
    # A name means itself, whatever it is to us.
    for name in names:
        found[name] = name
    return found


def _hypothesis(row: Answered, known: Field, label: str | None) -> Hypothesis:
    """Make the hypothesis of an answer in which a label was found, or none."""
    hypothesis = Hypothesis(row.key, known.tag, row.answer or "")
    if label is None:
        hypothesis.unread[known.name] = "names no label"
    else:
        hypothesis.labels[known.name] = label
    return _or_error(hypothesis, row)


def _or_error(hypothesis: Hypothesis, row: Answered) -> Hypothesis:
    """Return the hypothesis, marked as failed where there was no answer."""
    if row.answer is None:
        hypothesis.error = NO_ANSWER
    return hypothesis

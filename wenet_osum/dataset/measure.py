"""Measure the tokens of texts on a few utterances, so that an epoch can be planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from wenet_osum.dataset.context import Bank, ContextDraws
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.pool import TokenEstimate
from wenet_osum.dataset.sample import read_tags
from wenet_osum.dataset.shard import Handles, read_utterance
from wenet_osum.dataset.stretch import sizes_of
from wenet_osum.records import Utterance
from wenet_osum.tasks import free_texts
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import REPLY_MARK
from wenet_osum.text.template import FIRST, Template

MEASURED = 64  # utterances of a source whose texts are tokenized
# of the least share that a measured target takes of its estimate: what is longer even so is not
# read at all
SURE = 0.9
PROMPTS_DRAWN = 64  # prompts of a task drawn to learn the longest
BANK = 2000  # utterances of all lists together that hotwords are drawn from
CONTEXTS_DRAWN = 4  # contexts of a measured utterance drawn to learn the longest
TIME = "<12.34>"  # a time of a word

# utterances, each with the part of an index that holds it alone
Measured = list[tuple[Utterance, Index]]


def measure_tokens(
    indices: list[Index],
    template: Template,
    tasks: list[Task],
    context: ContextDraws | None = None,
) -> TokenEstimate:
    """Learn from evenly spread utterances how many tokens a byte of text takes at most.

    Prompts, times and labels are encoded, and prompts with a ``context`` where one is drawn.
    """
    measured = list(_some_utterances(indices))
    prompt = _longest_prompt(template, tasks)
    if context:
        prompt += _longest_context(measured, template, tasks, context)
    labels = [_label_tokens(task, template) for task in tasks]
    reply_mark = template.encode(REPLY_MARK)
    marks = [_mark_tokens(task, template) for task in tasks]
    estimate = TokenEstimate(
        prompt=prompt + len(template.suffix_ids),
        per_byte=_tokens_per_byte(measured, template),
        per_word=2 * len(template.encode(TIME)),
        label=max([len(reply_mark), *marks, *labels]),
    )
    shares = {}
    for task in tasks:
        share = _target_shares(measured, estimate, template, task)
        if share:
            shares[task.tags] = share
    return dataclasses.replace(estimate, measured=shares)


def _longest_prompt(template: Template, tasks: list[Task]) -> int:
    """Return the tokens of the longest of many drawn prompts."""
    longest = 0
    for task in tasks:
        for number in range(PROMPTS_DRAWN):
            ids = template.draw_prompt_ids(task, 0, 0, str(number))
            longest = max(longest, len(ids))
    return longest


def _longest_context(
    measured: Measured, template: Template, tasks: list[Task], context: ContextDraws
) -> int:
    """Return how many tokens drawn contexts add to a prompt at most."""
    longest = 0
    for utterance, _ in measured:
        for number in range(CONTEXTS_DRAWN):
            task = tasks[number % len(tasks)]
            words = template.draw_prompt(task, 0, number, utterance.key)
            try:
                told = context.draw(utterance, 0, number, utterance.key)
            except Drop:
                # it is counted when it is drawn
                continue
            added = len(template.encode_prompt(words, FIRST, told))
            added -= len(template.encode_prompt(words))
            longest = max(longest, added)
    return longest


def read_bank(lists: list[list[Index]], size: int) -> Bank:
    """Read the transcripts of ``size`` utterances, evenly spread over all lists."""
    indices = [index for of_list in lists for index in of_list]
    read = _some_utterances(indices, size)
    return Bank(utterance.txt or "" for utterance, _ in read)


def _tokens_per_byte(measured: Measured, template: Template) -> float:
    """Return the largest ratio of a measured text; 1 where there is none."""
    largest = 0.0
    for utterance, _ in measured:
        texts = [utterance.txt, utterance.reply]
        texts += _texts(utterance)
        for text in filter(None, texts):
            tokens = len(template.encode(text))
            largest = max(largest, tokens / len(text.encode()))
    return largest or 1.0


def _texts(utterance: Utterance) -> list[str]:
    """Return the free texts that an utterance has beside transcript and reply."""
    found = []
    for name in free_texts(utterance.labels):
        text = utterance.labels[name]
        found.append(str(text))
    return found


def _some_utterances(
    indices: list[Index], count: int = MEASURED
) -> Iterator[tuple[Utterance, Index]]:
    """Yield ``count`` utterances, evenly spread, with the part of the index of each."""
    handles = Handles()
    sizes = sizes_of(indices)
    ends = np.cumsum(sizes)
    spread = np.linspace(
        0,
        ends[-1] - 1,
        count,
    )
    for number in np.unique(spread.astype(int)).tolist():
        shard = int(np.searchsorted(ends, number, side="right"))
        row = number - int(ends[shard]) + int(sizes[shard])
        index = indices[shard]
        try:
            utterance, _ = read_utterance(index, row, handles)
        except Drop:
            # it is counted when it is drawn
            continue
        yield utterance, index.select(slice(row, row + 1))


def _target_shares(
    measured: Measured,
    estimate: TokenEstimate,
    template: Template,
    task: Task,
) -> tuple[float, float] | None:
    """Measure the share of the estimate that targets of a task take.

    Returns the least one, and that of all together; None where none of the utterances can be asked
    the task.
    """
    rows = []
    for utterance, alone in measured:
        utterance = read_tags(utterance, task, template)
        if task.present(utterance):
            tokens = len(template.target(task, utterance).ids)
            texts = alone.bytes_of_texts(task)
            bound = estimate.answer(task, alone.lengths, texts)
            rows.append((tokens, int(bound[0])))
    if not rows:
        return None

    # short texts, of which ends and labels are a large part, tell little about those near a limit
    by_bound = sorted(rows, key=_bound)
    longer = by_bound[len(rows) // 2 :]
    shares = [tokens / bound for tokens, bound in longer]
    tokens, bounds = zip(*longer, strict=True)
    return SURE * min(shares), sum(tokens) / sum(bounds)


def _bound(row: tuple[int, int]) -> int:
    """Return the estimate of a measured target."""
    return row[1]


def _mark_tokens(task: Task, template: Template) -> int:
    """Return the tokens of the mark before the task's free text; 0 where it has none."""
    last = task.fields[-1]
    mark = getattr(last, "mark", "")
    tokens = template.encode(mark)
    return len(tokens)


def _label_tokens(task: Task, template: Template) -> int:
    """Return the tokens of the task's longest label; 0 where it has none."""
    longest = 0
    for field in task.label_fields:
        for ids in template.label_ids(field).values():
            longest = max(longest, len(ids))
    return longest

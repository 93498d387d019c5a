"""Greedy search and sampling: all rows of a batch go on by one token at a time.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from wenet_osum.decode.ctc_draft import AGREED, PROPOSED
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import Prefixes
from wenet_osum.decode.row import TIE, Row


def greedy_search(
    prefixes: Prefixes,
    rows: list[Row],
    options: DecodeOptions,
    counts: Counter,
    labels_only: bool = False,
) -> None:
    """Complete the rows, one token per step, starting from ``prefixes``.

    Anything with the ``logits``, ``feed``, ``keep`` and ``score`` of Prefixes will do. With
    ``labels_only`` a row also leaves where free text would begin. ``counts`` collects ``steps``
    and ``ties``.
    """
    live = rows
    while True:
        # Rows with nothing in the queue take the model's next token; a label has its own turn.
        waiting = _waiting(live, labels_only)
        tokens = pick(prefixes.logits, live, waiting, options, counts)
        for i, token in zip(waiting, tokens, strict=True):
            live[i].take(token)
        choose(prefixes, live, counts)

        # Finished rows leave the batch.
        stay = [i for i, row in enumerate(live) if _goes_on(row)]
        if not stay:
            break
        if len(stay) < len(live):
            live = [live[i] for i in stay]
            prefixes.keep(stay)

        # A row with a label to choose has tokens in its queue before it, so all have one to feed.
        if any(row.draft or row.trusted for row in live):
            _feed_drafts(prefixes, live, options, counts)
        else:
            prefixes.feed([row.queue.pop(0) for row in live])
    for row in rows:
        row.queue.clear()


def _goes_on(row: Row) -> bool:
    """Return whether a row has something to be fed or to choose."""
    if row.finished:
        return False
    return bool(row.queue or row.choice)


def _waiting(live: list[Row], labels_only: bool) -> list[int]:
    """Return the indices of the rows that go on with the model's next token."""
    waiting = []
    for i, row in enumerate(live):
        if row.queue or row.choice or row.finished:
            continue
        if row.answer_state.at_label or not labels_only:
            waiting.append(i)
    return waiting


def _feed_drafts(
    prefixes: Prefixes, live: list[Row], options: DecodeOptions, counts: Counter
) -> None:
    """Feed what the rows have said and what CTC proposes behind it, in one pass.

    Each row goes on by the model's own tokens as far as these are the proposed ones.
    """
    guesses = [row.guesses() for row in live]
    kept = [len(row.queue) for row in live]
    fed = []
    for row, guessed in zip(live, guesses, strict=True):
        fed.append(row.queue + guessed)
        row.queue = []
    logits = prefixes.propose(fed)  # (B, n, V)

    # Place by place, the rows that have agreed so far.
    every = torch.arange(len(live))
    agreeing = [i for i, guessed in enumerate(guesses) if guessed]
    while agreeing:
        last = torch.tensor(kept) - 1
        own = logits[every, last]
        tokens = pick(own, live, agreeing, options, counts)
        right = []
        for i, token in zip(agreeing, tokens, strict=True):
            guess = fed[i][kept[i]]
            if _agrees(live[i], token, guess):
                right.append(i)
        for i in right:
            kept[i] += 1
        counts[AGREED] += len(right)
        agreeing = [i for i in right if live[i].guesses()]

    counts[PROPOSED] += sum(len(guessed) for guessed in guesses)
    prefixes.settle(kept)


def _agrees(row: Row, token: int, guess: int) -> bool:
    """Let a row take the model's next token; return whether it is the guess, which is fed
    already."""
    row.take(token)
    if not row.queue or token != guess:
        return False
    row.queue.pop()
    return True


def choose(prefixes: Prefixes, live: list[Row], counts: Counter) -> None:
    """Settle the labels whose turn has come, all of them in one scoring pass."""
    asking = [i for i, row in enumerate(live) if row.choice and not row.queue]
    if not asking:
        return
    labels = []
    for i in asking:
        continuations = live[i].choice.continuations
        labels.append(list(continuations.values()))
    scores = prefixes.score(asking, labels)
    for i, values in zip(asking, scores, strict=True):
        tied = live[i].decide(values)
        _count_step(live[i], tied, counts)


def pick(
    logits: Tensor, live: list[Row], waiting: list[int], options: DecodeOptions, counts: Counter
) -> list[int]:
    """Return the next token of each waiting row: the likeliest, or drawn.

    ``logits`` (B, V) are those of all live rows.
    """
    if not waiting:
        return []
    rows = live
    if len(waiting) < len(live):
        rows = [live[i] for i in waiting]
        logits = logits[waiting]
    said = [row.guard.ids for row in rows]
    logits = penalize(logits, said, options.repetition_penalty)
    if options.temperature:
        pairs = zip(logits, rows, strict=True)
        return [draw(own, row.draws, options.temperature) for own, row in pairs]
    if options.joint:
        pairs = zip(rows, logits, strict=True)
        joint = [row.joint.scores(row.answer_state, own) for row, own in pairs]
        logits = torch.stack(joint)

    tokens, are_tied = likeliest(logits)
    for row, tied in zip(rows, are_tied, strict=True):
        # At a label the token only says whether the model opens the tag by itself.
        if not row.answer_state.at_label:
            _count_step(row, tied, counts)
    return tokens


def likeliest(logits: Tensor) -> tuple[list[int], list[bool]]:
    """Return the likeliest token of each row of ``logits`` (B, V), and whether another batch might
    find another."""
    best, tokens = logits.max(1, keepdim=True)

    # For the second best the best is taken out for a moment: topk is five times slower on a CPU.
    logits.scatter_(1, tokens, -torch.inf)
    second = logits.amax(1, keepdim=True)
    logits.scatter_(1, tokens, best)
    tied = best - second <= TIE

    # The host waits for the device once.
    found = torch.cat([tokens, tied], dim=1)
    chosen, are_tied = found.T.tolist()
    return chosen, [one > 0 for one in are_tied]


def _count_step(row: Row, tied: bool, counts: Counter) -> None:
    counts["steps"] += 1
    if tied:
        counts["ties"] += 1
        row.flag("tie")


def penalize(logits: Tensor, said: list[list[int]], penalty: float) -> Tensor:
    """Make tokens already said less likely (Keskar et al., 2019, arXiv 1909.05858).

    ``logits`` (B, V) of a token that is among ``said`` are divided by ``penalty`` where they are
    above 0, and multiplied with it below.
    """
    if penalty == 1.0:
        return logits
    logits = logits.clone()
    for row, ids in zip(logits, said, strict=True):
        each_once = sorted(set(ids))
        index = torch.tensor(each_once, device=logits.device, dtype=torch.long)
        before = row[index]
        row[index] = torch.where(before > 0, before / penalty, before * penalty)
    return logits


def draw(logits: Tensor, draws: torch.Generator, temperature: float) -> int:
    """Draw a token from the softmax of ``logits`` (V,) over ``temperature``.

    The cumulative distribution is inverted at a number that depends on the row's key alone.
    """
    flattened = logits.double() / temperature
    probs = flattened.softmax(-1)
    sums = probs.cumsum(-1)
    number = torch.rand((), generator=draws, dtype=torch.float64)
    point = number.item() * sums[-1].item()
    token = int((sums <= point).sum())
    return min(token, len(logits) - 1)

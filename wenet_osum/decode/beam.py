"""Beam search over free text; labels are settled between, by scoring their whole set.

A beam hypothesis of a stretch ends with the end of text or where it opens the tag of the label that follows. Rows keep to
themselves: each has ``num_beams`` places in the batch, so answers do not depend on the batch. Letters: R rows, N beams,
L prompt positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode.constrain import Choice, AnswerState
from wenet_osum.decode.generate import TIE, Prompts, Row, complete, penalize
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.joint import Joint
from wenet_osum.decode.prefix import Prefixes
from wenet_osum.decode.stops import LoopGuard, limit

if TYPE_CHECKING:
    from collections.abc import Iterator

DEAD = float("-inf")


@dataclass
class Beam:
    """One way to go on, with its log-probability; ``choice`` is the label choice it ended with, if any."""

    answer_state: AnswerState
    guard: LoopGuard
    score: float
    choice: Choice | None = None
    flag: str | None = None
    joint: Joint | None = None

    def worth(self, penalty: float) -> float:
        """What finished beams are compared by; the token that ended the text counts as one."""
        return self.score / (len(self.guard.ids) + 1) ** penalty


@dataclass
class Search:
    """The beams of one row in one stretch of free text."""

    row: Row
    beams: list[Beam]
    ended: list[Beam]
    most: int  # tokens the stretch may take


def alternate(prompts: Prompts, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Complete the rows: labels, free text by beams, labels, … until nothing is left to say."""
    while True:
        for part, step in ((_asking, _settle_labels), (_free, _search)):
            chosen_rows = [i for i, row in enumerate(rows) if part(row)]
            if chosen_rows:
                chosen = [rows[i] for i in chosen_rows]
                answers = [row.answer_state.ids for row in chosen]
                step(prompts.prefixes(chosen_rows, answers), chosen, options, counts)
        if all(row.finished for row in rows):
            return


def _asking(row: Row) -> bool:
    return row.choice is not None or row.answer_state.at_label


def _free(row: Row) -> bool:
    return not row.finished and not _asking(row)


def _settle_labels(prefixes: Prefixes, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    complete(prefixes, rows, options, counts, labels_only=True)


def _search(prefixes: Prefixes, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Find the best stretch of free text of each row."""
    width = options.num_beams
    searches = [_begin(row, options) for row in rows]
    prefixes.keep([i for i in range(len(rows)) for _ in range(width)])
    while searches:
        kept, tokens, live = [], [], []
        for row_index, search, candidates in _candidates(prefixes.logits, searches, options):
            counts["steps"] += 1
            going, last = _advance(search, candidates, width)
            living = [beam for beam, _, _ in going]
            settled, close = _settled(search.ended, living, options)
            tied = close or _tied(candidates, width - 1) or _tied(candidates, last)
            over = settled or not going
            if over:
                tied |= _take_best(search, options)
            if tied:
                counts["ties"] += 1
                search.row.flag("tie")
            if over:
                continue
            search.beams = living
            kept += [row_index * width + source for _, source, _ in going]
            tokens += [token for _, _, token in going]
            live.append(search)
        searches = live
        if searches:
            prefixes.keep(kept)
            prefixes.feed(tokens)


def _begin(row: Row, options: DecodeOptions) -> Search:
    beams = [Beam(row.answer_state.clone(), LoopGuard(), 0.0 if i == 0 else DEAD, joint=row.joint) for i in range(options.num_beams)]
    most = options.max_tokens or limit(row.answer_state.stretch, row.audio_s)
    if row.room is not None:
        most = min(most, max(1, row.room - len(row.answer_state.ids)))
    return Search(row, beams, [], most)


def _candidates(logits: Tensor, searches: list[Search], options: DecodeOptions) -> Iterator[tuple[int, Search, list[tuple[float, int, int]]]]:
    """For each search its best continuations as (score, beam, token), best first; twice as many as beams plus one are enough."""
    width = options.num_beams
    said = [beam.guard.ids for search in searches for beam in search.beams]
    scores = penalize(logits, said, options.repetition_penalty).log_softmax(-1).double()
    if options.joint:
        beams = [beam for search in searches for beam in search.beams]
        scores = torch.stack([beam.joint.scores(beam.answer_state, row) for beam, row in zip(beams, scores, strict=True)])
    scores += torch.tensor([[beam.score] for search in searches for beam in search.beams], dtype=torch.float64, device=scores.device)
    vocabulary = scores.shape[1]
    top = scores.view(len(searches), -1).topk(min(2 * width + 1, width * vocabulary), dim=1)
    for row_index, (search, values, ids) in enumerate(zip(searches, top.values.tolist(), top.indices.tolist(), strict=True)):
        yield row_index, search, [(v, i // vocabulary, i % vocabulary) for v, i in zip(values, ids, strict=True) if v > DEAD]


def _advance(search: Search, candidates: list[tuple[float, int, int]], width: int) -> tuple[list[tuple[Beam, int, int]], int]:
    """Sort candidates into ended beams and exactly ``width`` that go on, with the beam they come from and their token.

    The second value is the place of the last candidate that was taken.
    """
    going: list[tuple[Beam, int, int]] = []
    rank = 0
    for rank, (score, source, token) in enumerate(candidates):
        old = search.beams[source]
        beam = Beam(old.answer_state.clone(), old.guard.clone(), score, joint=old.joint and old.joint.advance(old.answer_state, token))
        beam.choice = beam.answer_state.step(token)
        if beam.choice or beam.answer_state.done:
            if rank < width:
                search.ended.append(beam)
            continue
        looped = beam.guard.add(token)
        if looped or len(beam.guard.ids) >= search.most:
            beam.flag = "loop" if looped else "length_limit"
        going.append((beam, source, token))
        if len(going) == width:
            break
    alive = []
    for beam, source, token in going:
        if beam.flag:
            beam.choice = beam.answer_state.end()
            if beam.choice:
                beam.choice.forced = True
            search.ended.append(beam)
        else:
            alive.append((beam, source, token))
    return _filled(alive, width), rank


def _filled(alive: list[tuple[Beam, int, int]], width: int) -> list[tuple[Beam, int, int]]:
    """Empty places are filled with dead copies, so that every row keeps its number of places."""
    if not alive:
        return []
    beam, source, token = alive[0]
    return [*alive, *((Beam(beam.answer_state.clone(), beam.guard.clone(), DEAD, joint=beam.joint), source, token) for _ in range(width - len(alive)))]


def _settled(ended: list[Beam], living: list[Beam], options: DecodeOptions) -> tuple[bool, bool]:
    """Whether enough beams have ended and no living one is worth more than the worst of the best ended ones; and whether that was close."""
    if len(ended) < options.num_beams or not living:
        return False, False
    worst = sorted((b.worth(options.length_penalty) for b in ended), reverse=True)[options.num_beams - 1]
    ahead = max(b.worth(options.length_penalty) for b in living) - worst
    return ahead <= 0, abs(ahead) <= TIE


def _take_best(search: Search, options: DecodeOptions) -> bool:
    """Give the row the best of the ended beams; True when the next best lies within 1e-4."""
    best, *others = sorted(search.ended, key=lambda beam: -beam.worth(options.length_penalty))
    row = search.row
    row.answer_state, row.choice, row.joint = best.answer_state, best.choice, best.joint
    if best.flag:
        row.flag(best.flag)
    return bool(others) and best.worth(options.length_penalty) - others[0].worth(options.length_penalty) <= TIE


def _tied(candidates: list[tuple[float, int, int]], last: int) -> bool:
    """Whether the last candidate that is taken lies within 1e-4 of the first that is not: another batch may swap them."""
    return last + 1 < len(candidates) and candidates[last][0] - candidates[last + 1][0] <= TIE

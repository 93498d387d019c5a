"""Beam search over free text; labels are settled between, by scoring their whole set.

In a stretch of free text each row follows the ``num_beams`` likeliest beginnings. A beam ends with
the end of text, or where it opens the tag of the label that follows. Ended beams are compared by

    log P(beam) ÷ (tokens + 1) ^ length_penalty

a length normalization after Wu et al. (2016, arXiv 1609.08144, section 7), which takes the length
as it is. Rows keep to themselves: each has ``num_beams`` slots of the batch, so answers do not
depend on the batch.

Letters: R rows, N beams, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wenet_osum.decode.constrain import AnswerState, Choice
from wenet_osum.decode.greedy import greedy_search, penalize
from wenet_osum.decode.joint import Joint
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import Prefixes, Prompts
from wenet_osum.decode.row import TIE, Row
from wenet_osum.decode.stops import LoopGuard, limit

DEAD = float("-inf")


@dataclass
class Beam:
    """One way to go on. ``score`` is its log-probability, ``choice`` the label it ended with."""

    answer_state: AnswerState
    guard: LoopGuard
    score: float
    choice: Choice | None = None
    flag: str = ""
    joint: Joint | None = None
    # How many of the guard's tokens the answer was made to begin with.
    given: int = 0

    def worth(self, penalty: float) -> float:
        """Return what beams are compared by; the token that ended the text counts as one.

        Tokens that were given have no score, and do not count.
        """
        tokens = len(self.guard.ids) - self.given + 1
        return self.score / tokens**penalty

    def extended(self, score: float, token: int) -> Beam:
        """Return the beam with ``token`` proposed to it, and a new score."""
        joint = self.joint
        if joint:
            joint = joint.advance(self.answer_state, token)
        state = self.answer_state.clone()
        beam = Beam(state, self.guard.clone(), score, joint=joint, given=self.given)
        beam.choice = state.step(token)
        return beam

    def dead_copy(self) -> Beam:
        """Return a copy that no continuation can be taken from."""
        state, guard = self.answer_state.clone(), self.guard.clone()
        return Beam(state, guard, DEAD, joint=self.joint, given=self.given)


@dataclass
class Search:
    """The beams of one row in one stretch of free text, which may take ``most`` tokens."""

    row: Row
    beams: list[Beam]
    ended: list[Beam]
    most: int


class Candidate(NamedTuple):
    """A token after one of a row's beams, with the score of both together."""

    score: float
    source: int  # index of the beam
    token: int


class Step(NamedTuple):
    """A beam that goes on, the index of the one it comes from, and the token it has taken."""

    beam: Beam
    source: int
    token: int


def beam_search(prompts: Prompts, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Complete the rows: labels, free text by beams, labels, … until nothing is left to say.

    ``counts`` collects ``steps`` and ``ties``.
    """
    while not all(row.finished for row in rows):
        asking = [i for i, row in enumerate(rows) if _asking(row)]
        if asking:
            chosen, prefixes = _go_on(prompts, rows, asking)
            greedy_search(prefixes, chosen, options, counts, labels_only=True)

        free = [i for i, row in enumerate(rows) if _free(row)]
        if free:
            chosen, prefixes = _go_on(prompts, rows, free)
            _search(prefixes, chosen, options, counts)


def _asking(row: Row) -> bool:
    return row.choice is not None or row.answer_state.at_label


def _free(row: Row) -> bool:
    return not row.finished and not _asking(row)


def _go_on(prompts: Prompts, rows: list[Row], indices: list[int]) -> tuple[list[Row], Prefixes]:
    """Return the rows at ``indices``, and the prefixes that they go on from."""
    chosen = [rows[i] for i in indices]
    answers = [row.answer_state.ids for row in chosen]
    return chosen, prompts.prefixes(indices, answers)


def _search(prefixes: Prefixes, rows: list[Row], options: DecodeOptions, counts: Counter) -> None:
    """Find the best stretch of free text of each row."""
    width = options.num_beams
    searches = [_begin(row, options) for row in rows]
    slots = []
    for i in range(len(rows)):
        slots += [i] * width
    prefixes.keep(slots)

    while searches:
        # All beams of all rows are scored at once; then each row decides for itself.
        candidates = _candidates(prefixes.logits, searches, options)
        kept, tokens, live = [], [], []
        for i, search in enumerate(searches):
            going = _step(search, candidates[i], options, counts)
            if not going:
                continue
            for step in going:
                kept.append(i * width + step.source)
                tokens.append(step.token)
            live.append(search)

        # Rows whose search is over leave the batch. The cache follows the beams that were taken.
        searches = live
        if searches:
            prefixes.keep(kept)
            prefixes.feed(tokens)


def _begin(row: Row, options: DecodeOptions) -> Search:
    """Start with the answer so far in one beam; the others are dead, lest all say the same."""
    state = row.answer_state
    # The first stretch may begin with tokens that were given, which its guard has seen.
    guard = row.guard.clone()
    given = len(guard.ids)
    first = Beam(state.clone(), guard, 0.0, joint=row.joint, given=given)
    beams = [first]
    while len(beams) < options.num_beams:
        beams.append(first.dead_copy())

    most = options.max_tokens or limit(state.stretch, row.audio_s)
    if row.room is not None:
        left = row.room - len(state.ids)
        room = given + max(1, left)
        most = min(most, room)
    return Search(row, beams, [], most)


def _candidates(
    logits: Tensor, searches: list[Search], options: DecodeOptions
) -> list[list[Candidate]]:
    """Return each search's best continuations, best first. ``logits`` are (R · N, V)."""
    width = options.num_beams
    beams = [beam for search in searches for beam in search.beams]
    scores = _scores(logits, beams, options)

    # A beam can end in few ways, so among 2 N continuations there are N that go on, but for rare
    # cases, whose empty slots are filled. One more continuation shows whether the last is a tie.
    vocabulary = scores.shape[1]
    wanted = min(2 * width + 1, width * vocabulary)
    by_row = scores.view(len(searches), -1)
    top = by_row.topk(wanted, dim=1)
    found = []
    for values, indices in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        candidates = []
        for score, index in zip(values, indices, strict=True):
            source, token = divmod(index, vocabulary)
            candidates.append(Candidate(score, source, token))
        living = [candidate for candidate in candidates if candidate.score > DEAD]
        found.append(living)
    return found


def _scores(logits: Tensor, beams: list[Beam], options: DecodeOptions) -> Tensor:
    """Return the scores of each beam and its next token together: (R · N, V), float64."""
    said = [beam.guard.ids for beam in beams]
    logits = penalize(logits, said, options.repetition_penalty)
    scores = logits.log_softmax(-1).double()
    if options.joint:
        joint = []
        for beam, row in zip(beams, scores, strict=True):
            joint.append(beam.joint.scores(beam.answer_state, row))
        scores = torch.stack(joint)
    before = scores.new_tensor([beam.score for beam in beams])
    return scores + before.unsqueeze(1)


def _step(
    search: Search, candidates: list[Candidate], options: DecodeOptions, counts: Counter
) -> list[Step]:
    """Take one step of a row's search; return the beams that go on, none when it is over."""
    counts["steps"] += 1
    width = options.num_beams
    going, last = _advance(search, candidates, width)
    search.beams = [step.beam for step in going]

    # It is over when nothing goes on, or nothing that does can still become one of the best.
    settled, tied = _settled(search.ended, search.beams, options)
    over = settled or not going

    # Candidates decide at two places: which may end a beam, and which is the last to go on.
    tied = tied or _tied(candidates, width - 1) or _tied(candidates, last)
    if over:
        tied |= _take_best(search, options)
    if tied:
        counts["ties"] += 1
        search.row.flag("tie")
    return [] if over else going


def _advance(search: Search, candidates: list[Candidate], width: int) -> tuple[list[Step], int]:
    """Sort candidates into ended beams and exactly ``width`` that go on, or none.

    The second value is the rank of the last candidate that was taken.
    """
    going: list[Step] = []
    rank = 0
    for rank, (score, source, token) in enumerate(candidates):
        beam = search.beams[source].extended(score, token)
        if beam.choice or beam.answer_state.done:
            # An end that is not among the best ``width`` has better ways to go on before it.
            if rank < width:
                search.ended.append(beam)
            continue
        beam.flag = beam.guard.check(token)
        is_full = len(beam.guard.ids) >= search.most
        if is_full and not beam.flag:
            beam.flag = "length_limit"
        going.append(Step(beam, source, token))
        if len(going) == width:
            break

    alive = _end_stopped(search, going)
    return _filled(alive, width), rank


def _end_stopped(search: Search, going: list[Step]) -> list[Step]:
    """End the beams that a guard stops; return the others. A label that follows is forced."""
    alive = []
    for step in going:
        beam = step.beam
        if not beam.flag:
            alive.append(step)
            continue
        beam.choice = beam.answer_state.end()
        if beam.choice:
            beam.choice.forced = True
        search.ended.append(beam)
    return alive


def _filled(alive: list[Step], width: int) -> list[Step]:
    """Fill empty slots with dead copies, so that every row keeps its number of slots."""
    if not alive:
        return []
    beam, source, token = alive[0]
    filled = list(alive)
    while len(filled) < width:
        filled.append(Step(beam.dead_copy(), source, token))
    return filled


def _settled(ended: list[Beam], living: list[Beam], options: DecodeOptions) -> tuple[bool, bool]:
    """Return whether the search may stop, and whether that was close.

    It may when ``num_beams`` have ended, and no living beam is worth more than the worst of the
    best ``num_beams`` of them.
    """
    width, penalty = options.num_beams, options.length_penalty
    if len(ended) < width or not living:
        return False, False
    worths = sorted((beam.worth(penalty) for beam in ended), reverse=True)
    worst = worths[width - 1]
    best = max(beam.worth(penalty) for beam in living)
    ahead = best - worst
    return ahead <= 0, abs(ahead) <= TIE


def _take_best(search: Search, options: DecodeOptions) -> bool:
    """Give the row the best of the ended beams; return whether the next best is within 1e-4."""
    penalty = options.length_penalty
    ranked = sorted(search.ended, key=lambda beam: -beam.worth(penalty))
    best = ranked[0]
    row = search.row
    row.answer_state = best.answer_state
    row.choice = best.choice
    row.joint = best.joint
    if best.flag:
        row.flag(best.flag)
    if len(ranked) == 1:
        return False
    ahead = best.worth(penalty) - ranked[1].worth(penalty)
    return ahead <= TIE


def _tied(candidates: list[Candidate], last: int) -> bool:
    """Return whether the last candidate that is taken and the first that is not are within 1e-4.

    Another batch may swap them.
    """
    following = last + 1
    if following >= len(candidates):
        return False
    ahead = candidates[last].score - candidates[following].score
    return ahead <= TIE

"""The cache of unfinished answers: rows that leave take their padding along, and change nothing for those that stay."""

from __future__ import annotations

import pytest
import torch

from wenet_osum.decode.beam import Beam, Candidate, Search, _advance, _tied
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.prefix import Prefixes
from wenet_osum.decode.stops import LoopGuard
from wenet_osum.tasks import parse


@torch.no_grad()
def test_rows_that_leave_change_nothing(prompts):
    llm, embeds, mask = prompts
    together, alone = Prefixes(llm, embeds, mask), Prefixes(llm, embeds[2:, 3:], mask[2:, 3:])
    together.feed([5, 6, 7])
    together.keep([2, 1])
    assert together.mask.shape == (2, 7) and together.cache.get_seq_length() == 7  # cut to the longest that is left
    together.feed([8, 9])
    for token in (7, 8):
        alone.feed([token])
    assert torch.allclose(together.logits[0], alone.logits[0], atol=1e-4)


@torch.no_grad()
def test_scoring_leaves_the_cache_as_it_is(prompts):
    llm, embeds, mask = prompts
    prefixes = Prefixes(llm, embeds, mask)
    before = prefixes.logits.clone()
    scores = prefixes.score([2, 0], [[[5, 6, 7], [8]], [[9, 10]]])
    assert torch.equal(prefixes.logits, before) and prefixes.cache.get_seq_length() == 9
    assert scores[0][1] == pytest.approx(before[2].log_softmax(-1)[8].item(), abs=1e-5)
    steps = before[2].log_softmax(-1)[5].item()
    for token, following in ((5, 6), (6, 7)):
        prefixes.feed([0, 0, token])
        steps += prefixes.logits[2].log_softmax(-1)[following].item()
    assert scores[0][0] == pytest.approx(steps, abs=1e-4)


@torch.no_grad()
def test_the_head_is_given_what_it_multiplies_at_once(prompts):
    """A slice of the last positions would be multiplied row by row, on a CPU in bfloat16 with a copy of the head for each."""
    llm, embeds, mask = prompts
    given = []
    hook = llm.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        Prefixes(llm, embeds, mask).feed([5, 6, 7])
    finally:
        hook.remove()
    assert [tuple(hidden.shape) for hidden in given] == [(3, 1, embeds.shape[-1])] * 2
    assert all(hidden.is_contiguous() for hidden in given)


def test_beams_are_compared_by_token():
    short, long = Beam(None, LoopGuard(), -4.0), Beam(None, LoopGuard(), -6.0)
    long.guard.ids = [1, 2, 3]
    assert short.worth(0.0) > long.worth(0.0) and short.worth(1.0) < long.worth(1.0) == -1.5


def test_a_tie_counts_where_it_decides():
    """Of two beams one ends, so that the third candidate goes on: a tie of the third with the fourth decides, one among those taken does not."""
    def tied(scores: list[float], last: int) -> bool:
        return _tied([Candidate(score, 0, i) for i, score in enumerate(scores)], last)

    assert tied([-1.0, -2.0, -3.0, -3.00005], 2)
    assert not tied([-1.0, -1.00005, -3.0, -4.0], 2)
    assert not tied([-1.0], 0)


def test_the_last_candidate_taken_is_told(parts):
    _, template = parts
    beams = [Beam(AnswerState(template, parse("asr")), LoopGuard(), score) for score in (-0.1, -0.2)]
    search = Search(None, beams, [], 9)
    found = [(-1.0, 0, template.end_id), (-2.0, 0, 5), (-3.0, 1, 6), (-4.0, 1, 7)]
    going, last = _advance(search, [Candidate(*row) for row in found], 2)
    assert [token for _, _, token in going] == [5, 6] and last == 2 and len(search.ended) == 1

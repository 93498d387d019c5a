"""Word times from the emissions of any CTC model, by torchaudio's forced alignment (Viterbi through blank and tokens, arXiv 2305.13516).

Letters: F emission frames, V classes. CTC models speak in spikes: a token may take one frame of its sound and leave the rest to the blank. A short
gap between two words is therefore split between them, a longer one is a pause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wenet_osum.corpus.match_words import Unmatched, spans
from wenet_osum.records import Word

if TYPE_CHECKING:
    from torch import Tensor

GAP_S = 0.2  # s, gaps between words up to this are split in the middle
Encode = Callable[[str], list[tuple[int, int, int]]]  # text → (token id, first character, one past the last)


def force_align(log_probs: Tensor, text: str, encode: Encode, blank: int, frame_s: float, gap_s: float = GAP_S) -> list[Word]:
    """The units of ``text`` with times, s. ``log_probs`` (F, V) are log-softmax scores, a frame every ``frame_s``; ``blank`` is CTC's class.

    A token belongs to the unit its last character lies in. Raises Unmatched when there is nothing to align, or more than the frames can hold.
    """
    offsets, tokens = spans(text), encode(text)
    if not offsets or not tokens:
        raise Unmatched("no words in the transcript", repr(text[:40]))
    ids = [token for token, _, _ in tokens]
    needed = len(ids) + sum(a == b for a, b in zip(ids, ids[1:], strict=False))
    if needed > len(log_probs):
        raise Unmatched("more tokens than frames", f"{needed} for {len(log_probs)} frames of {frame_s} s")
    times: dict[int, tuple[int, int]] = {}
    for (_, start, end), (first, last) in zip(tokens, _frames(log_probs, ids, blank), strict=True):
        if not text[start:end].strip():  # a token that is nothing but a space belongs to no word
            continue
        owner = _owner(offsets, start, end)
        times[owner] = (times.get(owner, (first, last))[0], last)
    if len(times) < len(offsets):
        lacking = next(i for i in range(len(offsets)) if i not in times)
        raise Unmatched("a word has no token of its own", text[slice(*offsets[lacking])])
    words = [Word(" ".join(text[a:b].split()), times[i][0] * frame_s, times[i][1] * frame_s) for i, (a, b) in enumerate(offsets)]
    return _without_small_gaps(words, gap_s)


def _frames(log_probs: Tensor, ids: list[int], blank: int) -> list[tuple[int, int]]:
    """First frame and one past the last of each token."""
    import torch
    from torchaudio.functional import forced_align, merge_tokens

    targets = torch.tensor([ids], dtype=torch.int32)
    path, scores = forced_align(log_probs.detach().cpu().float()[None], targets, blank=blank)
    return [(span.start, span.end) for span in merge_tokens(path[0], scores[0].exp(), blank=blank)]


def _owner(offsets: list[tuple[int, int]], start: int, end: int) -> int:
    """The unit a token's last character lies in; what lies between units belongs to the one before."""
    last = max(end - 1, start)
    return max((i for i, (begin, _) in enumerate(offsets) if begin <= last), default=0)


def _without_small_gaps(words: list[Word], gap_s: float) -> list[Word]:
    out = list(words)
    for i in range(len(out) - 1):
        left, right = out[i], out[i + 1]
        if 0 < right.start - left.end <= gap_s:
            middle = (left.end + right.start) / 2
            out[i], out[i + 1] = Word(left.text, left.start, middle), Word(right.text, middle, right.end)
    return out

"""Find word times from the emissions of any CTC model, by torchaudio's forced alignment.

It is a Viterbi search through blank and tokens (arXiv 2305.13516).
Letters: F emission frames, V classes.

CTC models speak in spikes: a token may take one frame of its sound and leave the rest to the blank.
A short gap between two words is therefore split between them, a longer one is a pause. Where spikes
are far apart they say little of when a word ends; its sound does (decode/aligner.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wenet_osum.corpus.match_words import Unmatched, spans
from wenet_osum.records import Word
from wenet_osum.text.ctc_classes import ClassEncoder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

GAP_S = 0.2  # s, gaps between words up to this are split in the middle
Token = tuple[int, int, int]  # token id, first character, one past the last
Encode = Callable[[str], list[Token]]  # text → its tokens


def spelling(
    tokenizer: PreTrainedTokenizerBase, classes: Sequence[int] | None, lowercase: bool = False
) -> Encode:
    """Return what writes a text with ``classes``, token ids of ``tokenizer``; None: with all of
    them.

    What it gives are places in ``classes``, or the ids themselves. It raises Unmatched for a text
    that they cannot write.
    """
    encoder = None
    if classes is not None:
        encoder = ClassEncoder(tokenizer, classes)
        tokenizer = encoder.tokenizer

    def encode(text: str) -> list[tuple[int, int, int]]:
        written = tokenizer(
            text.lower() if lowercase else text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        ids = written["input_ids"]
        if encoder is not None:
            ids = encoder.classes(ids)
        if ids is None:
            raise Unmatched("a character that no class of CTC writes", repr(text[:40]))
        places = written["offset_mapping"]
        return [(number, *place) for number, place in zip(ids, places, strict=True)]

    return encode


def force_align(
    log_probs: Tensor,
    text: str,
    encode: Encode,
    blank: int,
    frame_s: float,
    gap_s: float = GAP_S,
) -> list[Word]:
    """Return the units of ``text`` with times, s.

    ``log_probs`` (F, V) are log-softmax scores, one frame every ``frame_s``; ``blank`` is the class
    of CTC's blank. A token belongs to the unit that its last character lies in. Raises Unmatched
    when there is nothing to align, or more than the frames can hold.
    """
    units = spans(text)
    tokens = encode(text)
    if not units or not tokens:
        raise Unmatched("no words in the transcript", repr(text[:40]))
    ids = [token for token, _, _ in tokens]
    _check_room(ids, len(log_probs), frame_s)

    # A unit lasts from its first token to its last.
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    found = _frames(log_probs, ids, blank)
    for (_, start, end), (first, last) in zip(tokens, found, strict=True):
        # A token that is nothing but a space belongs to no word.
        if not text[start:end].strip():
            continue
        owner = _owner(units, start, end)
        firsts.setdefault(owner, first)
        lasts[owner] = last

    words = []
    for i, (start, end) in enumerate(units):
        unit = text[start:end]
        if i not in firsts:
            raise Unmatched("a word has no token of its own", unit)
        plain = " ".join(unit.split())
        start_s = firsts[i] * frame_s
        end_s = lasts[i] * frame_s
        words.append(Word(plain, start_s, end_s))
    return _without_small_gaps(words, gap_s)


def _check_room(ids: list[int], frames: int, frame_s: float) -> None:
    """Raise Unmatched where the frames cannot hold the tokens.

    Each token takes a frame, and CTC needs a blank between two of a kind.
    """
    blanks = 0
    for token, following in zip(ids, ids[1:], strict=False):
        if token == following:
            blanks += 1
    needed = len(ids) + blanks
    if needed > frames:
        room = f"{frames} frames of {frame_s} s"
        raise Unmatched("more tokens than frames", f"{needed} for {room}")


def _frames(log_probs: Tensor, ids: list[int], blank: int) -> list[tuple[int, int]]:
    """Return the first frame and one past the last of each token."""
    import torch
    from torchaudio.functional import forced_align, merge_tokens

    # torchaudio takes a batch, here of one.
    emissions = log_probs.detach().cpu().float()
    targets = torch.tensor([ids], dtype=torch.int32)
    paths, scores = forced_align(emissions[None], targets, blank=blank)
    probs = scores[0].exp()

    found = []
    for span in merge_tokens(paths[0], probs, blank=blank):
        found.append((span.start, span.end))
    return found


def _owner(units: list[tuple[int, int]], start: int, end: int) -> int:
    """Return the unit that a token's last character lies in.

    Characters between two units belong to the one before.
    """
    last = max(end - 1, start)
    owner = 0
    for i, (begin, _) in enumerate(units):
        if begin <= last:
            owner = i
    return owner


def _without_small_gaps(words: list[Word], gap_s: float) -> list[Word]:
    """Let two words meet in the middle of a gap of at most ``gap_s``."""
    out = list(words)
    for i in range(1, len(out)):
        left = out[i - 1]
        right = out[i]
        gap = right.start - left.end
        if 0 < gap <= gap_s:
            middle = (left.end + right.start) / 2
            out[i - 1] = left._replace(end=middle)
            out[i] = right._replace(start=middle)
    return out

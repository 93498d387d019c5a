"""CTC prefix beam search: the likeliest texts by CTC alone, each by the sum over its paths.

After Hannun et al., 2014 (arXiv 1408.2873), algorithm 1, without a language model.

Letters: N states, C classes.
"""

from __future__ import annotations

import math

from torch import Tensor

from wenet_osum.decode.ctc_prefix import LOG_ZERO

Prefix = tuple[int, ...]
# log P of the paths of a prefix that end with a blank, and of those that end with its last class.
Ends = tuple[float, float]


def prefix_beam_search(logits: Tensor, blank: int, beams: int) -> list[tuple[list[int], float]]:
    """Return the ``beams`` likeliest sequences of classes with their log-probabilities, best first.

    ``logits`` are (N, C). In each state only its ``beams`` likeliest classes are looked at.
    """
    logs = logits.double().log_softmax(-1)
    count = min(beams, logs.shape[1])
    best = logs.topk(count)
    classes = best.indices.tolist()
    log_probs = best.values.tolist()
    blanks = logs[:, blank].tolist()

    prefixes: dict[Prefix, Ends] = {(): (0.0, LOG_ZERO)}
    for state, log_blank in enumerate(blanks):
        tokens = dict(zip(classes[state], log_probs[state], strict=True))
        tokens.pop(blank, None)
        longer = _step(prefixes, log_blank, tokens)
        prefixes = _likeliest(longer, beams)

    found = []
    for prefix, ends in prefixes.items():
        log_prob = log_add(*ends)
        found.append(([*prefix], log_prob))
    return found


def _step(
    prefixes: dict[Prefix, Ends], log_blank: float, tokens: dict[int, float]
) -> dict[Prefix, Ends]:
    """Let all prefixes go on by one state, with a blank or one of the ``tokens``."""
    found: dict[Prefix, Ends] = {}
    for prefix, ends in prefixes.items():
        after_blank, after_token = ends
        total = log_add(after_blank, after_token)
        _add_to_blank(found, prefix, total + log_blank)
        last = prefix[-1] if prefix else None
        for token, log_prob in tokens.items():
            longer = (*prefix, token)
            if token != last:
                _add_to_token(found, longer, total + log_prob)
                continue
            # Without a blank between the two it is the same token, held longer.
            _add_to_token(found, prefix, after_token + log_prob)
            _add_to_token(found, longer, after_blank + log_prob)
    return found


def _add_to_blank(found: dict[Prefix, Ends], prefix: Prefix, log_prob: float) -> None:
    """Add paths that end with a blank to those that are known of a prefix."""
    blank, token = found.get(prefix, (LOG_ZERO, LOG_ZERO))
    blank = log_add(blank, log_prob)
    found[prefix] = (blank, token)


def _add_to_token(found: dict[Prefix, Ends], prefix: Prefix, log_prob: float) -> None:
    """Add paths that end with the last class, where there are any."""
    if log_prob == LOG_ZERO:
        return
    blank, token = found.get(prefix, (LOG_ZERO, LOG_ZERO))
    token = log_add(token, log_prob)
    found[prefix] = (blank, token)


def _likeliest(prefixes: dict[Prefix, Ends], beams: int) -> dict[Prefix, Ends]:
    """Return the likeliest prefixes, best first."""

    def log_prob(prefix: Prefix) -> float:
        ends = prefixes[prefix]
        return log_add(*ends)

    ranked = sorted(prefixes, key=log_prob, reverse=True)
    kept = {}
    for prefix in ranked[:beams]:
        kept[prefix] = prefixes[prefix]
    return kept


def log_add(one: float, other: float) -> float:
    """Return log(exp(one) + exp(other)); of two floats numpy's takes more than twice as long."""
    larger = max(one, other)
    smaller = min(one, other)
    if smaller == LOG_ZERO:
        return larger
    share = math.exp(smaller - larger)
    return larger + math.log1p(share)

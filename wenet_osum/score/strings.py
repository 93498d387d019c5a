"""Error rates of plain strings, for notebooks and quick checks.

    from wenet_osum.score import cer, wer
    wer("hello world", "hello duck")  # 0.5

Lists, languages, intervals and other tasks are what ``score_task`` is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from wenet_osum.score.align import count
from wenet_osum.score.normalize import get, tokens


def wer(
    reference: str | Sequence[str], hypothesis: str | Sequence[str], normalizer: str = "none"
) -> float:
    """Return the word error rate: errors of all strings ÷ reference words of all strings.

    ``reference`` and ``hypothesis`` are a string each, or lists of equal length. ``normalizer`` is
    a name of normalize.py. Raises ValueError for lists of different lengths, for an unknown
    normalizer, and when the references hold no word.
    """
    return _rate(reference, hypothesis, normalizer, language="en")


def cer(
    reference: str | Sequence[str], hypothesis: str | Sequence[str], normalizer: str = "none"
) -> float:
    """Return the character error rate as it is counted for Chinese; arguments as in ``wer``.

    Words of other scripts count as one token each and spaces do not count.
    """
    return _rate(reference, hypothesis, normalizer, language="zh")


def _rate(
    reference: str | Sequence[str],
    hypothesis: str | Sequence[str],
    normalizer: str,
    language: str,
) -> float:
    references = [reference] if isinstance(reference, str) else reference
    hypotheses = [hypothesis] if isinstance(hypothesis, str) else hypothesis
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references and {len(hypotheses)} hypotheses; "
            "give one hypothesis for each reference"
        )

    # Errors and tokens are summed up first, so that long strings weigh more than short ones.
    normalize = get(normalizer, language)
    errors = total = 0
    for expected, answered in zip(references, hypotheses, strict=True):
        expected_tokens = tokens(normalize(expected), language)
        answered_tokens = tokens(normalize(answered), language)
        errors += count(expected_tokens, answered_tokens).errors
        total += len(expected_tokens)
    if not total:
        raise ValueError("the references hold no word, so there is no rate; give at least one")
    return errors / total

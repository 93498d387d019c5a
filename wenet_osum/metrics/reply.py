"""Replies against a reference reply, computed offline; a judge may be asked besides.

- ``exact_match``: share of replies equal to the reference after the named normalizer and with
  single spaces.
- ``token_f1``: mean over replies of the F1 of the token bags (SQuAD, arXiv 1606.05250); lower case,
  no punctuation, Chinese per character.
- ``rouge_l``: mean F1 of the longest common subsequence of the same tokens (Lin, 2004, W04-1013).
- ``chrf``: F2 of character 1- to 6-grams over the whole list, without spaces (Popović, 2015,
  W15-3049), the definition of sacrebleu's chrF2 with its default settings. It is written here
  because sacrebleu brings lxml and a regex engine for these thirty lines.

``judge`` is in score/judged.py. A missing or unread reply scores 0 in each. The transcript before
the reply is a field of its own and is scored by error_rate.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from wenet_osum.metrics.error_rate import describe
from wenet_osum.records import Metric
from wenet_osum.score import judged
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, divide, share
from wenet_osum.score.normalize import answer_tokens, get, language
from wenet_osum.tasks import Field

EXACT_MATCH = Metric("exact_match", "exact replies", counts=("empty",))
TOKEN_F1 = Metric("token_f1", "token F1")
ROUGE_L = Metric("rouge_l", "ROUGE-L")
CHRF = Metric("chrf", "chrF")
# Length of the longest character n-gram.
ORDER = 6
# Recall counts twice as much as precision.
BETA = 2.0


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute four metrics over all replies, and the mean verdict of a judge where there is one."""
    texts, rows, grams = [], [], []
    for pair in pairs:
        reference = str(field.value(pair.reference))
        reply = (pair.hypothesis.reply or "") if pair.answered else ""
        texts.append((reference, reply))
        row = (
            1,
            exact(reference, reply, pair, options),
            token_f1(reference, reply),
            rouge_l(reference, reply),
        )
        rows.append(row)
        grams.append(ngram_counts(reference, reply))

    # Three are means over replies: a sum over replies by their number, which column 0 adds up to.
    total = len(pairs)
    columns = np.array(rows, dtype=float)
    facts = {
        "strata": np.zeros(total, dtype=int),
        "keys": [pair.reference.key for pair in pairs],
    }
    found = []
    for column, metric in enumerate((EXACT_MATCH, TOKEN_F1, ROUGE_L), 1):
        mean = share(column, 0)
        found.append(MetricSums(metric, columns, mean, total, **facts))

    # chrF is computed from the n-grams of all replies together.
    grams = np.array(grams, dtype=float)
    found.append(MetricSums(CHRF, grams, chrf_of_counts, total, **facts))

    found[0].detail |= {
        "normalizer": options.normalizer,
        **counts(field.name, pairs),
        "worst": _worst(field, pairs, texts, columns, options),
        "empty": _empty(pairs, texts),
    }
    if options.judge:
        verdicts = judged.compute(pairs, texts, options.judge, options.worst)
        found.append(verdicts)
    return found


def _empty(pairs: list[Pair], texts: list[tuple[str, str]]) -> int:
    """Count the answers with an empty reply."""
    empty = 0
    for pair, (_, reply) in zip(pairs, texts, strict=True):
        if pair.answered and not reply.strip():
            empty += 1
    return empty


def exact(reference: str, hypothesis: str, pair: Pair, options: Options) -> bool:
    """Compare the texts after normalization; a reply that is not there equals nothing."""
    if not pair.answered or pair.hypothesis.reply is None:
        return False
    lang = language(pair.reference.lang, reference)
    normalize = get(options.normalizer, lang)

    # Cutting at white space makes runs of it count as one space.
    expected = normalize(reference).split()
    answered = normalize(hypothesis).split()
    return expected == answered


def token_f1(reference: str, hypothesis: str) -> float:
    """Return the F1 of the bags of tokens, 0 to 1 (SQuAD, arXiv 1606.05250).

    Texts without any token, such as bare punctuation, count as 1 when they are equal, else as 0.
    """
    ref = answer_tokens(reference)
    hyp = answer_tokens(hypothesis)
    if not ref and not hyp:
        return _same_text(reference, hypothesis)
    common = Counter(ref) & Counter(hyp)
    return 2.0 * common.total() / (len(ref) + len(hyp))


def rouge_l(reference: str, hypothesis: str) -> float:
    """Return the F1 of the longest common subsequence of tokens, 0 to 1 (Lin, 2004, W04-1013).

    Texts without any token count as in ``token_f1``.
    """
    ref = answer_tokens(reference)
    hyp = answer_tokens(hypothesis)
    if not ref and not hyp:
        return _same_text(reference, hypothesis)
    common = LCSseq.similarity(ref, hyp)
    return 2.0 * common / (len(ref) + len(hyp))


def _same_text(reference: str, hypothesis: str) -> float:
    """Compare two texts that hold no token: 1 when they are equal, else 0."""
    same = reference.split() == hypothesis.split()
    return float(same)


def ngram_counts(reference: str, hypothesis: str) -> list[int]:
    """Count matches, hypothesis n-grams and reference n-grams of each order, (3 · ORDER,)."""
    ref = "".join(reference.split())
    hyp = "".join(hypothesis.split())
    found = []
    for size in range(1, ORDER + 1):
        expected = _ngrams(ref, size)
        answered = _ngrams(hyp, size)
        matches = expected & answered

        # As in sacrebleu, an order that the reference is too short for has no counts at all.
        answered_total = answered.total() if expected else 0
        found += [matches.total(), answered_total, expected.total()]
    return found


def _ngrams(text: str, size: int) -> Counter:
    starts = range(len(text) - size + 1)
    return Counter(text[start : start + size] for start in starts)


def chrf_of_counts(sums: np.ndarray) -> np.ndarray:
    """Turn summed n-gram counts (R, 3 · ORDER) into chrF, in % (R,) (Popović, 2015, W15-3049)."""
    # (R, ORDER) each
    matches = sums[:, 0::3]
    hyp = sums[:, 1::3]
    ref = sums[:, 2::3]

    # Precision and recall are averaged over the orders that both sides have.
    there = (hyp > 0) & (ref > 0)
    orders = there.sum(axis=1)
    precisions = np.where(there, divide(matches, hyp), 0)
    precision = divide(precisions.sum(axis=1), orders)
    recalls = np.where(there, divide(matches, ref), 0)
    recall = divide(recalls.sum(axis=1), orders)

    # F-beta is the harmonic mean of both in which recall weighs beta² times as much.
    weight = BETA**2
    top = (1 + weight) * precision * recall
    bottom = weight * precision + recall
    return 100.0 * divide(top, bottom)


def _worst(
    field: Field,
    pairs: list[Pair],
    texts: list[tuple[str, str]],
    columns: np.ndarray,
    options: Options,
) -> list[dict[str, Any]]:
    """Return the replies that differ, beginning with the least alike by ROUGE-L."""

    def rank(index: int) -> tuple[float, str]:
        return columns[index, 3], pairs[index].reference.key

    wrong = [index for index in range(len(pairs)) if not columns[index, 1]]
    rows = []
    for index in sorted(wrong, key=rank)[: options.worst]:
        pair = pairs[index]
        reference, reply = texts[index]
        row = {
            "key": pair.reference.key,
            "lang": language(pair.reference.lang, reference),
            "ref": reference,
            "hyp": reply,
            "note": describe(pair) or _unread(field, pair),
            "text": pair.reference.txt or "",
        }
        rows.append(row)
    return rows


def _unread(field: Field, pair: Pair) -> str:
    """Say what could not be read of an answer; empty when all could."""
    why = pair.hypothesis.unread.get(field.name)
    if why is None:
        return ""
    return f"unread: {why}"

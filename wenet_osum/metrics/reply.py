"""Replies against a reference reply, offline; a judge may be asked besides.

- ``exact_match``: share of replies equal to the reference after the named normalizer and with single spaces.
- ``token_f1``: mean over replies of the F1 of the token bags (SQuAD, arXiv 1606.05250); lower case, no punctuation, Chinese per character.
- ``rouge_l``: mean F1 of the longest common subsequence of the same tokens (Lin, 2004, W04-1013).
- ``chrf``: F2 of character 1- to 6-grams over the whole list, spaces apart (Popović, 2015, W15-3049), the definition of sacrebleu's
  chrF2 with its default settings. Written here because sacrebleu brings lxml and a regex engine for these thirty lines.

``judge`` is in judge.py. A missing or unread reply scores 0 in each. The transcript before the reply is scored by error_rate: it is a field of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from wenet_osum.records import Metric
from wenet_osum.score import judge
from wenet_osum.metrics.error_rate import describe
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, divide, share
from wenet_osum.score.normalize import answer_tokens, get, language
from wenet_osum.tasks import Field

EXACT_MATCH = Metric("exact_match", "exact replies", counts=("empty",))
TOKEN_F1 = Metric("token_f1", "token F1")
ROUGE_L = Metric("rouge_l", "ROUGE-L")
CHRF = Metric("chrf", "chrF")
ORDER = 6  # longest character n-gram
BETA = 2.0  # recall counts twice as much as precision


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Four figures over all replies, and the mean verdict of a judge where there is one."""
    texts = [(str(field.value(p.reference)), (p.hypothesis.reply or "") if p.answered else "") for p in pairs]
    rows = [(1, exact(r, h, p, options), token_f1(r, h), rouge_l(r, h)) for p, (r, h) in zip(pairs, texts, strict=True)]
    columns = np.array(rows, dtype=float)
    grams = np.array([ngram_counts(r, h) for r, h in texts], dtype=float)
    found = [MetricSums(metric, columns, share(i, 0), len(pairs), trials=len(pairs)) for i, metric in enumerate((EXACT_MATCH, TOKEN_F1, ROUGE_L), 1)]
    found.append(MetricSums(CHRF, grams, chrf_of_counts, len(pairs), trials=len(pairs)))
    found[0].detail |= {"normalizer": options.normalizer, **counts(field.name, pairs), "worst": _worst(field, pairs, texts, columns, options)}
    found[0].detail["empty"] = sum(p.answered and not h.strip() for p, (_, h) in zip(pairs, texts, strict=True))
    if options.judge:
        found.append(judge.compute(field, pairs, texts, options.judge, options.worst))
    return found


def exact(reference: str, hypothesis: str, pair: Pair, options: Options) -> bool:
    """Equality after normalization; a reply that is not there equals nothing."""
    if not pair.answered or pair.hypothesis.reply is None:
        return False
    spell = get(options.normalizer, language(pair.reference.lang, reference))
    return spell(reference).split() == spell(hypothesis).split()


def token_f1(reference: str, hypothesis: str) -> float:
    """F1 of the bags of tokens, 0 to 1."""
    ref, hyp = answer_tokens(reference), answer_tokens(hypothesis)
    common = sum((Counter(ref) & Counter(hyp)).values())
    return 2.0 * common / (len(ref) + len(hyp)) if ref or hyp else float(reference.split() == hypothesis.split())


def rouge_l(reference: str, hypothesis: str) -> float:
    """F1 of the longest common subsequence of tokens, 0 to 1."""
    ref, hyp = answer_tokens(reference), answer_tokens(hypothesis)
    if not ref and not hyp:
        return float(reference.split() == hypothesis.split())
    return 2.0 * LCSseq.similarity(ref, hyp) / (len(ref) + len(hyp))


def ngram_counts(reference: str, hypothesis: str) -> list[int]:
    """Matches, hypothesis n-grams and reference n-grams of each order, (3 · ORDER,)."""
    ref, hyp = "".join(reference.split()), "".join(hypothesis.split())
    found = []
    for size in range(1, ORDER + 1):
        a, b = (Counter(text[i : i + size] for i in range(len(text) - size + 1)) for text in (ref, hyp))
        found += [sum((a & b).values()), sum(b.values()) if a else 0, sum(a.values())]  # as sacrebleu: no reference, no count
    return found


def chrf_of_counts(sums: np.ndarray) -> np.ndarray:
    """chrF in % from summed n-gram counts (R, 3 · ORDER): precision and recall averaged over the orders both sides have."""
    matches, hyp, ref = (sums[:, part::3] for part in range(3))
    there = (hyp > 0) & (ref > 0)
    orders = there.sum(axis=1)
    precision = divide(np.where(there, divide(matches, hyp), 0).sum(axis=1), orders)
    recall = divide(np.where(there, divide(matches, ref), 0).sum(axis=1), orders)
    return 100.0 * divide((1 + BETA**2) * precision * recall, BETA**2 * precision + recall)


def _worst(field: Field, pairs: list[Pair], texts: list[tuple[str, str]], columns: np.ndarray, options: Options) -> list[dict[str, Any]]:
    """Replies that differ, least alike first."""
    wrong = [i for i in range(len(pairs)) if not columns[i, 1]]
    wrong.sort(key=lambda i: (columns[i, 3], pairs[i].reference.key))
    return [
        {
            "key": pairs[i].reference.key,
            "lang": language(pairs[i].reference.lang, texts[i][0]),
            "ref": texts[i][0],
            "hyp": texts[i][1],
            "note": describe(pairs[i]) or _unread(field, pairs[i]),
            "text": pairs[i].reference.txt or "",
        }
        for i in wrong[: options.worst]
    ]


def _unread(field: Field, pair: Pair) -> str:
    return f"unread: {pair.hypothesis.unread[field.name]}" if field.name in pair.hypothesis.unread else ""

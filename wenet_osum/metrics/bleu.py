"""BLEU of a translation over the whole list, by sacrebleu (Papineni et al., 2002, P02-1040; Post,
2018, W18-6319).

It is the geometric mean of the precisions of 1- to 4-grams of words, times the brevity penalty, 0
to 100, with sacrebleu's default smoothing. Chinese is cut by sacrebleu's ``zh``; Japanese and
Korean by ``char`` (their MeCab is not needed), as are Thai, Lao, Burmese and Khmer; any other
language by ``13a``.
"""

from __future__ import annotations

from typing import Any

from wenet_osum.metrics.error_rate import describe
from wenet_osum.records import Metric
from wenet_osum.score import sacrebleu_sums
from wenet_osum.score.metric_sums import MetricSums, Options, Pair
from wenet_osum.score.normalize import CHARACTER_LANGUAGES
from wenet_osum.tasks import Field

BLEU = Metric("bleu", "BLEU", unit="points", counts=("empty",), faults=("empty",))
CHINESE = frozenset(("zh", "yue", "nan", "wuu", "hak"))


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute BLEU per target language."""
    found = sacrebleu_sums.compute(field, pairs, options, BLEU, scorer)
    for sums in found:
        own = set(sums.keys)
        of_language = [pair for pair in pairs if pair.reference.key in own]
        sums.detail["worst"] = _worst(field, of_language, sums.subset, options.worst)
    return found


def scorer(lang: str) -> Any:
    """Make sacrebleu's BLEU for a target language."""
    # Imported here: it takes a while, and only translations need it.
    from sacrebleu.metrics import BLEU as SacreBleu

    # Answers are written as they are, so a space before the full stop is no fault of the list.
    return SacreBleu(tokenize=tokenizer(lang), force=True)


def tokenizer(lang: str) -> str:
    """Return the name of sacrebleu's tokenizer for a target language."""
    if lang in CHINESE:
        return "zh"
    if lang in CHARACTER_LANGUAGES or lang == "ko":
        return "char"
    return "13a"


def _worst(field: Field, pairs: list[Pair], lang: str, limit: int) -> list[dict[str, Any]]:
    """Return the translations with the lowest BLEU of their own, of which short ones have the
    orders they are long enough for."""
    from sacrebleu.metrics import BLEU as SacreBleu

    alone = SacreBleu(tokenize=tokenizer(lang), force=True, effective_order=True)
    rows = []
    for pair in pairs:
        reference = str(field.value(pair.reference))
        answer = sacrebleu_sums.answer_text(field, pair)
        value = alone.sentence_score(answer, [reference]).score
        unread = ""
        if pair.answered:
            unread = pair.hypothesis.unread.get(field.name, "")
        row = {
            "key": pair.reference.key,
            "lang": lang,
            "ref": reference,
            "hyp": answer,
            "note": describe(pair) or unread or f"BLEU {value:.1f}",
            "text": pair.reference.txt or "",
        }
        rows.append((value, row["key"], row))
    rows.sort(key=lambda entry: entry[:2])
    return [row for value, _, row in rows[:limit] if value < 100]

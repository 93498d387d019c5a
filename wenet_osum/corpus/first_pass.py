"""Choose the utterances whose transcript a recognizer agrees with.

Soundwave (arXiv 2502.12900) keeps what a published Whisper transcribes with a word error rate below
10 %, of 3 to 30 s, with at most 200 characters and no more than a second for each: uncleaned speech
made its alignment unstable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.align import count
from wenet_osum.score.normalize import get, language, tokens


@dataclass(frozen=True)
class Rules:
    """Limits that an utterance must keep. None turns a rule off."""

    max_wer: float | None = 10.0  # % of its words, or of its characters where those are scored
    min_s: float | None = 3.0
    max_s: float | None = 30.0
    max_characters: int | None = 200  # of the transcript
    max_s_per_character: float | None = 1.0  # more is silence, or speech that nobody wrote down
    normalizer: str = "none"

    @property
    def ask_for_duration(self) -> bool:
        """Tell whether any rule is about the duration."""
        timed = (self.min_s, self.max_s, self.max_s_per_character)
        return timed != (None, None, None)


def agreeing(
    utterances: Iterable[Utterance], answers: Mapping[str, Hypothesis], rules: Rules
) -> tuple[list[Utterance], Counter]:
    """Return the utterances that keep to the rules, and how many do not, by reason.
    ``answers`` are those of the first pass by key. Raises ValueError for an unknown normalizer.
    """
    kept: list[Utterance] = []
    left_out: Counter = Counter()
    for utterance in utterances:
        why = breaks(utterance, answers.get(utterance.key), rules)
        if why is None:
            kept.append(utterance)
        else:
            left_out[why] += 1
    return kept, left_out


def breaks(utterance: Utterance, answer: Hypothesis | None, rules: Rules) -> str | None:
    """Return the first rule that an utterance breaks; None if it breaks none."""
    if not utterance.txt:
        return "no transcript"
    return _shape(utterance, rules) or _disagreement(utterance, answer, rules)


def _shape(utterance: Utterance, rules: Rules) -> str | None:
    """Say what is wrong with the lengths of audio and transcript."""
    characters = len(utterance.txt)
    if above(characters, rules.max_characters):
        return f"transcript of more than {rules.max_characters} characters"

    if not rules.ask_for_duration:
        return None
    seconds = utterance.duration
    if seconds is None:
        return "no duration"
    if rules.min_s is not None and seconds < rules.min_s:
        return f"shorter than {rules.min_s:g} s"
    if above(seconds, rules.max_s):
        return f"longer than {rules.max_s:g} s"
    pace = seconds / characters
    if above(pace, rules.max_s_per_character):
        return f"more than {rules.max_s_per_character:g} s per character"
    return None


def above(value: float, most: float | None) -> bool:
    """Tell whether a value is above its limit; None is no limit."""
    return most is not None and value > most


def _disagreement(utterance: Utterance, answer: Hypothesis | None, rules: Rules) -> str | None:
    """Say whether the first pass heard something else."""
    if rules.max_wer is None:
        return None
    if answer is None:
        return "no answer of the first pass"
    if answer.error or answer.transcript is None:
        return "the first pass failed"
    spoken = language(utterance.lang, utterance.txt)
    normalize = get(rules.normalizer, spoken)
    expected = tokens(normalize(utterance.txt), spoken)
    if not expected:
        return "no word in the transcript"
    heard = tokens(normalize(answer.transcript), spoken)
    errors = count(expected, heard).errors
    rate = 100 * errors / len(expected)
    if rate > rules.max_wer:
        return f"word error rate above {rules.max_wer:g} %"
    return None

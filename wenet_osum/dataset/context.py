"""The context that prompts of training tell: hotwords, spoken or not, and the text before.

Spoken words are drawn from the transcript, rarer ones rather, for names and terms are what people
give. Distractors are drawn in the same way from transcripts of other utterances, so that nothing
but the sound tells which is which. Every draw is fixed by (seed, epoch, key), as those of the sound
are. The idea of such lists, with distractors, is that of contextual training as in Pundak et al.
(2018, arXiv 1808.02480).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from wenet_osum.config import ContextConfig
from wenet_osum.context import Context, context_of
from wenet_osum.dataset import augment
from wenet_osum.dataset.drop import Drop
from wenet_osum.records import Utterance
from wenet_osum.score.normalize import answer_tokens
from wenet_osum.score.spoken import occurrences
from wenet_osum.tasks.base import CJK, UNIT

# Letters of a word, at least: shorter ones are hardly ever names or terms.
LETTERS = 4
# Characters of a piece of Chinese: fewest and most.
PIECE = (2, 4)
TRIES = 4  # to find a distractor that is not spoken, for each that is wanted
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
RUN = re.compile(rf"(?:(?![\u3000-\u303f\uff00-\uffef]){CJK.pattern})+")


def read(utterance: Utterance) -> Context:
    """Return what an utterance's manifest says. Raises Drop for what cannot be read."""
    try:
        return context_of(utterance)
    except ValueError as error:
        raise Drop("context: cannot be read", str(error)) from None


def plain(text: str) -> str:
    """Return a transcript without tags and times, of the published form too."""
    kept = ""
    for unit in UNIT.finditer(text):
        is_tag = unit[1] is not None
        if not is_tag:
            kept += unit[0]
    return kept


class Bank:
    """Transcripts of other utterances, and how often their words are said."""

    def __init__(self, transcripts: Iterable[str]) -> None:
        self.texts: list[str] = []
        self.counts: Counter[str] = Counter()
        for transcript in transcripts:
            text = plain(transcript)
            if text.strip():
                self.texts.append(text)
                self.counts.update(answer_tokens(text))

    def rarity(self, word: str) -> float:
        """Return the weight of a word: 1 where it was never met, less the oftener it was.

        Of several words or characters the rarest one counts.
        """
        tokens = answer_tokens(word)
        counts = [self.counts[token] for token in tokens]
        rarest = min(counts, default=0)
        return 1.0 / (1 + rarest)

    def draw_words(self, text: str, count: int, rng: np.random.Generator) -> list[str]:
        """Draw different words of a text, rarer ones rather; fewer where it has no more."""
        words = pieces(text, rng)
        count = min(count, len(words))
        if not count:
            return []
        weights = np.array([self.rarity(word) for word in words])
        odds = weights / weights.sum()
        numbers = rng.choice(
            len(words),
            count,
            replace=False,
            p=odds,
        )
        return [words[number] for number in numbers]


def pieces(text: str, rng: np.random.Generator) -> list[str]:
    """Return each word of a text that may be a hotword once, and its Chinese in pieces of drawn
    lengths."""
    found = []
    shortest, _ = PIECE
    for run in RUN.findall(text):
        rest = run
        while len(rest) >= shortest:
            size = _between(PIECE, rng)
            found.append(rest[:size])
            rest = rest[size:]
    others = RUN.sub(" ", text)
    for word in WORD.findall(others):
        if len(word) >= LETTERS:
            found.append(word)
    return list(dict.fromkeys(found))


class ContextDraws:
    """Draws the context of each sample."""

    def __init__(self, conf: ContextConfig, bank: Bank) -> None:
        self.conf = conf
        self.bank = bank

    def draw(self, utterance: Utterance, seed: int, epoch: int, key: str) -> Context:
        """Draw what the prompt of an utterance tells. Raises Drop for a manifest's own context that
        cannot be read.

        Hotwords that a manifest gives stand in the place of drawn ones.
        """
        conf = self.conf
        known = read(utterance)
        rng = augment.make_rng(seed, epoch, f"context {key}")
        # Both are drawn for every utterance, so that neither depends on the other.
        is_listed = rng.random() < conf.share
        is_told = rng.random() < conf.previous
        words: tuple[str, ...] = ()
        if is_listed:
            words = known.hotwords or self._hotwords(utterance, rng)
        before = ""
        if is_told:
            before = known.previous
        return Context(words, before)

    def _hotwords(self, utterance: Utterance, rng: np.random.Generator) -> tuple[str, ...]:
        """Draw spoken words and distractors, in any order."""
        conf = self.conf
        text = plain(utterance.txt or "")
        alone = rng.random() < conf.distractors_only
        spoken = _between(conf.words, rng)
        others = _between(conf.distractors, rng)
        words: list[str] = []
        if alone:
            others = max(1, others)
        else:
            words += self.bank.draw_words(text, spoken, rng)
        words += self._distractors(text, others, rng)
        rng.shuffle(words)
        return tuple(words)

    def _distractors(self, text: str, count: int, rng: np.random.Generator) -> list[str]:
        """Draw different words of other transcripts that are not spoken in a text."""
        heard = answer_tokens(text)
        texts = self.bank.texts
        found: list[str] = []
        if not texts:
            return found
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            number = int(rng.integers(len(texts)))
            other = texts[number]
            for word in self.bank.draw_words(other, 1, rng):
                tokens = answer_tokens(word)
                is_spoken = occurrences(tokens, heard) > 0
                if not is_spoken and word not in found:
                    found.append(word)
        return found


def _between(numbers: Sequence[int], rng: np.random.Generator) -> int:
    """Draw a number from the fewest to the most."""
    fewest, most = numbers
    return int(rng.integers(fewest, most + 1))

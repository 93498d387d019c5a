"""Pseudo-speech: text laid out as the adapter will lay out speech, so that a small LLM can learn its tasks from text alone.

A pretrained LLM can repeat and sort what stands before it. A small one has to learn it, or no adapter can make it transcribe; text costs a
hundredth of speech. An utterance becomes frames of 80 ms, as the adapter makes them: the tokens of its words about where they are spoken, and
between them the end of text, as the blank stands between the tokens of CTC. Labels and times are added to every frame with small random weights: the
mean embedding of each label's tokens, and the span of the word that is spoken, or in silence the frame's own span, as sinusoids. The answer is that of
the task with real speech.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from wenet_osum import tasks
from wenet_osum.records import Utterance, Word
from wenet_osum.tasks.base import Task, escape, join_words
from wenet_osum.text.template import Template
from wenet_osum.text.timing import ANY_TIME, Span, timed_tokens

FRAME_S = 0.08  # of one embedding of the adapter
WORD_S = 0.3  # of a word whose times are not known
SHUFFLED = 0.5  # share of transcripts whose words are put in a random order: those cannot be guessed and must be heard
JITTER_S = 0.04  # standard deviation of a token's place
WEIGHT_RANGE = (0.1, 1.0)  # weight of a label, and of a frame's place: least and most, drawn evenly on a logarithmic scale
HELD_TOKENS = 0.15  # share of tokens that are held for a second frame


@dataclass
class Line:
    """One training example of the small LLM."""

    ids: list[int]  # prompt, border, frames, border, answer
    answer: int  # how many of the last are the answer
    speech: slice  # where the frames are
    spans: list[Span]  # from when to when what each frame says is spoken, in frames
    span_weight: float  # weight of the sinusoids of ``spans``, in standard deviations of the embeddings
    labels: list[tuple[list[int], float]]  # tokens of each label, and the weight of their mean embedding in every frame


class PseudoSpeech:
    """Draws lines of pseudo-speech from utterances, each with a task and random labels; the same for the same seed."""

    def __init__(
        self,
        utterances: list[Utterance],
        template: Template,
        seed: int,
        task_weights: dict[str, float] | None = None,
        leading_silence: float = 0.0,
    ) -> None:
        """``task_weights`` says how often a task is asked, 1 for those with a file that it does not name; it may name combinations (``<GENDER><AGE>``).

        ``leading_silence`` is the share of lines that begin with silence, up to the longest utterance there is, so that late times are written as often as early ones.

        Raises ValueError for an unknown task, or no usable utterance.
        """
        self.template, self.draw, self.leading_silence = template, random.Random(seed), leading_silence
        self.task_weights = {template.task(name).name: share for name, share in (task_weights or {}).items()}
        self.tasks = [template.task(name) for name in dict.fromkeys([*tasks.names(), *self.task_weights])]
        self.utterances = [u for u in utterances if u.txt and any(t.present(u) for t in self.tasks)]
        if not self.utterances:
            raise ValueError(f"none of {len(utterances)} utterances has a transcript and a task; look at the manifest")
        self.longest_s = max(_duration(_with_words(u)) for u in self.utterances)

    def lines(self, count: int) -> Iterator[Line]:
        """``count`` lines, over and over the utterances in a new order."""
        for number in range(count):
            if number % len(self.utterances) == 0:
                order = self.draw.sample(self.utterances, len(self.utterances))
            yield self.line(order[number % len(order)])

    def line(self, utterance: Utterance) -> Line:
        """One utterance asked one of its tasks."""
        able = [t for t in self.tasks if t.present(utterance)]
        (task,) = self.draw.choices(able, [self.task_weights.get(t.name, 1.0) for t in able])
        utterance = self._with_random_labels(_with_words(utterance))
        if task.fields[-1].kind != "reply" and self.draw.random() < SHUFFLED:
            utterance = self._shuffled(utterance)
        if self.leading_silence and self.draw.random() < self.leading_silence:
            utterance = _later(utterance, self.draw.uniform(0, self.longest_s - _duration(utterance)))
        prompt = self.template.draw_prompt_ids(task, self.draw.getrandbits(32), 0, utterance.key)
        answer = self.template.target(task, utterance).ids
        end, (frames, spans) = self.template.end_id, self.frames(utterance)
        labels = _labels(utterance, self.tasks).values()
        weighted = [(self.template.encode(label), self._faint()) for label in labels]
        speech = slice(len(prompt) + 1, len(prompt) + 1 + len(frames))
        return Line([*prompt, end, *frames, end, *answer], len(answer), speech, spans, self._faint(), weighted)

    def _faint(self) -> float:
        return math.exp(self.draw.uniform(*map(math.log, WEIGHT_RANGE)))

    def frames(self, utterance: Utterance) -> tuple[list[int], list[Span]]:
        """The tokens of the words in frames of ``FRAME_S``, and from when to when (in frames) the word of each is spoken.

        A frame without a token has the time of the word that is spoken then; in silence it is itself.
        """
        tokens, spans = self._timed_tokens(utterance)
        token_at: dict[int, int] = {}  # frame → which token
        last = -1
        for number, (start, end) in enumerate(spans):
            last = max(last + 1, round(((start + end) / 2 + self.draw.gauss(0, JITTER_S)) / FRAME_S))
            token_at[last] = number
            if self.draw.random() < HELD_TOKENS:
                last += 1
                token_at[last] = number
        count = max(last + 1, round(_duration(utterance) / FRAME_S))
        ids = [tokens[token_at[i]] if i in token_at else self.template.end_id for i in range(count)]
        return ids, [_stretch(utterance.words, spans[token_at[i]] if i in token_at else None, i) for i in range(count)]

    def _timed_tokens(self, utterance: Utterance) -> tuple[list[int], list[Span]]:
        """The transcript's tokens and when each is spoken (s), each word's characters spread evenly over it."""
        tokens, spans = timed_tokens(self.template.tokenizer, escape(utterance.txt), utterance.words, spread=True)
        before = 0.0
        for i, span in enumerate(spans):
            if span == ANY_TIME:  # what no word has follows what stands before it
                spans[i] = (before, before)
            before = spans[i][1]
        return tokens, spans

    def _with_random_labels(self, utterance: Utterance) -> Utterance:
        """The labels it has, with other values: what follows from nothing must be heard."""
        known = _labels(utterance, self.tasks)
        sets = {f.attribute: f.labels.names for t in self.tasks for f in t.label_fields}
        return utterance.with_values({name: self.draw.choice(sets[name]) for name in known})

    def _shuffled(self, utterance: Utterance) -> Utterance:
        texts = self.draw.sample([w.text for w in utterance.words], len(utterance.words))
        words = [Word(text, w.start, w.end) for text, w in zip(texts, utterance.words, strict=True)]
        return dataclasses.replace(utterance, words=words, txt=join_words(texts))


def _labels(utterance: Utterance, among: list[Task]) -> dict[str, str]:
    """Attribute → the canonical label the utterance holds."""
    return {f.attribute: f.value(utterance) for t in among for f in t.label_fields if f.present(utterance)}


def _stretch(words: list[Word], said: Span | None, frame: int) -> Span:
    """Start and end, in frames, of the word that is spoken when something is ``said`` (s), or in the middle of a frame that says nothing."""
    moment = (said[0] + said[1]) / 2 if said else (frame + 0.5) * FRAME_S
    spoken = next(((w.start, w.end) for w in words if w.start <= moment < w.end), None)
    return (spoken[0] / FRAME_S, spoken[1] / FRAME_S) if spoken else (frame, frame + 1)


def _duration(utterance: Utterance) -> float:
    return utterance.duration or utterance.words[-1].end


def _later(utterance: Utterance, silence_s: float) -> Utterance:
    words = [Word(w.text, w.start + silence_s, w.end + silence_s) for w in utterance.words]
    return dataclasses.replace(utterance, words=words, duration=_duration(utterance) + silence_s)


def _with_words(utterance: Utterance) -> Utterance:
    """An utterance without word times gets even ones."""
    if utterance.words:
        return utterance
    texts = utterance.txt.split() if " " in utterance.txt.strip() else list(utterance.txt.strip())
    return dataclasses.replace(utterance, words=[Word(t, i * WORD_S, (i + 1) * WORD_S) for i, t in enumerate(texts)])

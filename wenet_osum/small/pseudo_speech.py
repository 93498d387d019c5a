"""Pseudo-speech: text laid out as the adapter lays out speech, so that a small LLM can learn its
tasks from text alone.

A pretrained LLM can repeat and sort what stands before it. A small one has to learn it, or no
adapter can make it transcribe, and text costs a hundredth of speech. An utterance becomes frames of
80 ms, as the adapter makes them: the tokens of its words about where they are spoken, and between
them the end of text, as the blank stands between the tokens of CTC. Labels and times are added to
every frame with small random weights: the mean embedding of each label's tokens, and as sinusoids
the span of the word that is spoken, or in silence the frame's own span. The answer is that of the
task with real speech.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from wenet_osum import tasks
from wenet_osum.records import Utterance, Word
from wenet_osum.tasks.base import CJK, Task, escape, join_words
from wenet_osum.text.template import Template
from wenet_osum.text.timing import ANY_TIME, Span, timed_tokens

# Seconds per embedding of the adapter.
FRAME_S = 0.08
# Seconds of a word whose times are not known.
WORD_S = 0.3
# Share of transcripts whose words are put in a random order. Those cannot be guessed: the LLM has
# to read them in the frames.
SHUFFLED = 0.5
# Standard deviation of a token's place, s.
JITTER_S = 0.04
# Least and greatest weight of a label, and of a frame's span, drawn evenly on a logarithmic scale.
WEIGHT_RANGE = (0.1, 1.0)
# Share of tokens that are held for a second frame.
HELD_TOKENS = 0.15


@dataclass
class Line:
    """One training example of the small LLM."""

    # Prompt, border, frames, border, answer.
    ids: list[int]
    # How many of the last ids are the answer.
    answer: int
    # Where the frames are among the ids.
    speech: slice
    # Start and end, in frames, of the word that each frame belongs to.
    spans: list[Span]
    # Weight of the sinusoids of ``spans``, in standard deviations of the embeddings.
    span_weight: float
    # Tokens of each label, and the weight of their mean embedding in every frame.
    labels: list[tuple[list[int], float]]


class PseudoSpeech:
    """Draws lines of pseudo-speech from utterances, each with a task and random labels.

    The lines are the same for the same seed.
    """

    def __init__(
        self,
        utterances: list[Utterance],
        template: Template,
        seed: int,
        task_weights: dict[str, float] | None = None,
        leading_silence: float = 0.0,
    ) -> None:
        """Keep the utterances that have a transcript and a task.

        ``task_weights`` says how often a task is asked, relative to 1 for the tasks in files that
        it does not name; it may name combinations (``<GENDER><AGE>``). ``leading_silence`` is the
        share of lines that begin with silence, up to the length of the longest utterance, so that
        late times are written as often as early ones.

        Raises ValueError for an unknown task, and when no utterance can be used.
        """
        self.template = template
        self.draw = random.Random(seed)
        self.leading_silence = leading_silence
        self.task_weights = {}
        for name, weight in (task_weights or {}).items():
            task = template.task(name)
            self.task_weights[task.name] = weight
        names = dict.fromkeys([*tasks.default_names(), *self.task_weights])
        self.tasks = [template.task(name) for name in names]

        self.utterances = [u for u in utterances if u.txt and self._able(u)]
        if not self.utterances:
            raise ValueError(
                f"none of {len(utterances)} utterances has a transcript and a task; "
                "look at the manifest"
            )
        timed = map(_with_words, self.utterances)
        self.longest_s = max(map(_duration, timed))

    def lines(self, count: int) -> Iterator[Line]:
        """Yield ``count`` lines, going over the utterances again and again in a new order."""
        whole = len(self.utterances)
        for number in range(count):
            if number % whole == 0:
                order = self.draw.sample(self.utterances, whole)
            utterance = order[number % whole]
            yield self.line(utterance)

    def line(self, utterance: Utterance) -> Line:
        """Make a line of an utterance, with a task drawn among those it has values for."""
        task = self._draw_task(utterance)
        utterance = self._vary(utterance, task)

        # The prompt and the answer are those of real speech.
        template = self.template
        seed = self.draw.getrandbits(32)
        prompt = template.draw_prompt_ids(task, seed, 0, utterance.key)
        answer = template.target(task, utterance).ids

        # The end of text stands before and after the frames, as the two borders of speech.
        end = template.end_id
        frames, spans = self.frames(utterance)
        start = len(prompt) + 1
        labels = []
        for label in _labels(utterance, self.tasks).values():
            tokens = template.encode(label)
            labels.append((tokens, self._draw_weight()))
        return Line(
            ids=[*prompt, end, *frames, end, *answer],
            answer=len(answer),
            speech=slice(start, start + len(frames)),
            spans=spans,
            span_weight=self._draw_weight(),
            labels=labels,
        )

    def frames(self, utterance: Utterance) -> tuple[list[int], list[Span]]:
        """Return the token id of each frame of ``FRAME_S``, and when the word of each is spoken.

        The times are start and end in frames. A frame without a token has those of the word that
        is spoken in its middle, in silence its own.
        """
        tokens, spans = self._timed_tokens(utterance)
        token_at = self._place(spans)
        whole = round(_duration(utterance) / FRAME_S)
        last = max(token_at, default=-1)
        count = max(last + 1, whole)

        ids, frame_spans = [], []
        for frame in range(count):
            token, span = self.template.end_id, None
            if frame in token_at:
                number = token_at[frame]
                token, span = tokens[number], spans[number]
            ids.append(token)
            word_span = _word_span(utterance.words, span, frame)
            frame_spans.append(word_span)
        return ids, frame_spans

    def _able(self, utterance: Utterance) -> list[Task]:
        """Return the tasks that an utterance has values for."""
        return [task for task in self.tasks if task.present(utterance)]

    def _draw_task(self, utterance: Utterance) -> Task:
        """Draw one of the tasks that an utterance has values for, by their weights."""
        able = self._able(utterance)
        weights = [self.task_weights.get(task.name, 1.0) for task in able]
        (task,) = self.draw.choices(able, weights)
        return task

    def _draw_weight(self) -> float:
        """Draw the weight of a label, or of a line's spans."""
        least, most = map(math.log, WEIGHT_RANGE)
        return math.exp(self.draw.uniform(least, most))

    def _vary(self, utterance: Utterance, task: Task) -> Utterance:
        """Draw other labels, maybe another order of words, and maybe silence before them."""
        utterance = self._with_random_labels(_with_words(utterance))

        # A reply answers the words in their order.
        replies = task.fields[-1].kind == "reply"
        if not replies and self.draw.random() < SHUFFLED:
            utterance = self._shuffled(utterance)

        if self.leading_silence and self.draw.random() < self.leading_silence:
            room = self.longest_s - _duration(utterance)
            silence = self.draw.uniform(0, room)
            utterance = _later(utterance, silence)
        return utterance

    def _place(self, spans: list[Span]) -> dict[int, int]:
        """Choose the frames of tokens that are spoken at ``spans`` (s): frame → number of token.

        Each token stands about in its middle and behind the one before it; some are held for a
        second frame.
        """
        placed: dict[int, int] = {}
        last = -1
        for number, (start, end) in enumerate(spans):
            middle = (start + end) / 2
            jitter = self.draw.gauss(0, JITTER_S)
            place = round((middle + jitter) / FRAME_S)
            last = max(last + 1, place)
            placed[last] = number
            if self.draw.random() < HELD_TOKENS:
                last += 1
                placed[last] = number
        return placed

    def _timed_tokens(self, utterance: Utterance) -> tuple[list[int], list[Span]]:
        """Return the transcript's tokens and when each is spoken (s), each word's characters spread
        evenly over it."""
        text = escape(utterance.txt)
        tokens, spans = timed_tokens(
            self.template.tokenizer,
            text,
            utterance.words,
            spread=True,
        )
        # A token that belongs to no word follows at once what stands before it.
        before = 0.0
        for i, span in enumerate(spans):
            if span == ANY_TIME:
                spans[i] = (before, before)
            _, before = spans[i]
        return tokens, spans

    def _with_random_labels(self, utterance: Utterance) -> Utterance:
        """Give the labels that an utterance has other values.

        They follow from nothing else in the line, so the LLM has to read them in the frames.
        """
        sets = {}
        for task in self.tasks:
            for field in task.label_fields:
                sets[field.attribute] = field.labels.names
        drawn = {}
        for attribute in _labels(utterance, self.tasks):
            drawn[attribute] = self.draw.choice(sets[attribute])
        return utterance.with_values(drawn)

    def _shuffled(self, utterance: Utterance) -> Utterance:
        """Put the words in a random order; each takes the time of the one whose place it gets."""
        texts = [word.text for word in utterance.words]
        texts = self.draw.sample(texts, len(texts))
        words = []
        for text, word in zip(texts, utterance.words, strict=True):
            words.append(Word(text, word.start, word.end))
        return dataclasses.replace(utterance, words=words, txt=join_words(texts))


def _labels(utterance: Utterance, among: list[Task]) -> dict[str, str]:
    """Return the canonical labels that an utterance has, by attribute."""
    found = {}
    for task in among:
        for field in task.label_fields:
            if field.present(utterance):
                found[field.attribute] = field.value(utterance)
    return found


def _word_span(words: list[Word], token: Span | None, frame: int) -> Span:
    """Return start and end, in frames, of the word that a frame belongs to.

    It is the word that is spoken in the middle of the frame's ``token`` (s), or, without a token,
    in the middle of the frame. Where no word is spoken it is the frame's own span.
    """
    moment = (frame + 0.5) * FRAME_S
    if token:
        start, end = token
        moment = (start + end) / 2
    for word in words:
        if word.start <= moment < word.end:
            return (word.start / FRAME_S, word.end / FRAME_S)
    return (frame, frame + 1)


def _duration(utterance: Utterance) -> float:
    """Return the length of an utterance, s: up to its last word where it is not known."""
    return utterance.duration or utterance.words[-1].end


def _later(utterance: Utterance, silence_s: float) -> Utterance:
    """Put silence before an utterance."""
    words = []
    for word in utterance.words:
        start = word.start + silence_s
        end = word.end + silence_s
        words.append(Word(word.text, start, end))
    duration = _duration(utterance) + silence_s
    return dataclasses.replace(utterance, words=words, duration=duration)


def _with_words(utterance: Utterance) -> Utterance:
    """Give an utterance without word times words of equal length; text of a script without spaces
    is taken character by character."""
    if utterance.words:
        return utterance
    text = utterance.txt.strip()
    pieces = text if CJK.search(text) and " " not in text else text.split()
    words = []
    for i, piece in enumerate(pieces):
        start = i * WORD_S
        end = (i + 1) * WORD_S
        words.append(Word(piece, start, end))
    return dataclasses.replace(utterance, words=words)

"""The times of known words in speech, by the CTC of a model.

For transcripts of a corpus (tools/force_align.py), and for the words that the LLM has answered
(``--word_times ctc``).

Letters: B utterances, T frames of the longest, M mel bins, N states, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wenet_osum.corpus.forced_align import force_align, spelling
from wenet_osum.corpus.match_words import Unmatched
from wenet_osum.decode import ctc_search
from wenet_osum.decode.generate import device_of
from wenet_osum.decode.pauses import longest_run, voiced_frames
from wenet_osum.models.ctc_scores import scoring_of
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Hypothesis, Word
from wenet_osum.tasks.base import join_words
from wenet_osum.text.template import Template

# Silence that parts two words, s. A shorter one may be the closure of a stop within a word.
PAUSE_S = 0.08
# Flag of an answer whose words CTC cannot have said: the times are the LLM's.
NOT_ALIGNED = "not_aligned"


class Aligner:
    """Finds the words of a transcript in speech with the CTC of a model.

    Gaps between words up to ``gap_s`` are split between them. None: pauses part the words, which
    last until their voice falls silent. Raises ValueError for a model without CTC.
    """

    def __init__(
        self, model: OsumModel | WhisperPhase, template: Template, gap_s: float | None = None
    ) -> None:
        ctc_search.check_model(model, "forced alignment")
        self.model = model
        self.gap_s = gap_s
        self.classes = model.speech_classes()
        losses = getattr(model.config, "losses", None)
        scoring = scoring_of(losses)
        self.encode = spelling(template.tokenizer, scoring.classes, template.lowercase)

        # Of a state: those of the encoder, or what the adapter of a speech LLM makes of them.
        self.frame_s = model.encoder.state_s
        if isinstance(model, OsumModel):
            self.frame_s = model.embedding_s

    def words(self, features: Tensor, text: str) -> list[Word]:
        """Return the words of ``text`` with their times in features (T, M), s.

        Raises Unmatched for a text that cannot be aligned.
        """
        lengths = torch.tensor([len(features)])
        [logs] = self.log_probs(features[None], lengths)
        return self._words(logs, features, text)

    def retime(self, batch: Batch, answers: list[Hypothesis]) -> None:
        """Give the words of a batch's answers their times by CTC, in place.

        Words that cannot be aligned keep those of the LLM, and the answer is flagged. Of a
        conversation the last recording is read.
        """
        if not any(answer.words for answer in answers):
            return
        lengths = batch.feature_lengths.cpu()
        logs = self.log_probs(batch.features, lengths)
        rows = range(len(lengths))
        if batch.turns is not None:
            rows = batch.turns.last_recordings().tolist()

        for row, answer in zip(rows, answers, strict=True):
            if not answer.words:
                continue
            length = int(lengths[row])
            features = batch.features[row, :length]
            found = self._times(logs[row], features.cpu(), answer.words)
            if found is None:
                answer.flags.append(NOT_ALIGNED)
            else:
                answer.words = found

    def _times(self, logs: Tensor, features: Tensor, words: list[Word]) -> list[Word] | None:
        """Return words with other times, None where they cannot be aligned."""
        texts = [word.text for word in words]
        line = join_words(texts)
        try:
            found = self._words(logs, features, line)
        except Unmatched:
            return None
        if len(found) != len(words):
            return None
        timed = []
        for text, (_, start, end) in zip(texts, found, strict=True):
            word = Word(text, start, end)
            timed.append(word)
        return timed

    def _words(self, logs: Tensor, features: Tensor, text: str) -> list[Word]:
        """Align a text by the log-probabilities (N, C) of features (T, M)."""
        words = force_align(
            logs,
            text,
            self.encode,
            self.classes.blank,
            self.frame_s,
            self.gap_s or 0.0,
        )
        if self.gap_s is None:
            logs_of_power = features.float().numpy()
            voiced = voiced_frames(logs_of_power)
            words = between_pauses(words, voiced, FRAME_S, self.frame_s)

        # The last state may reach beyond the end.
        duration = len(features) * FRAME_S
        kept = []
        for word, start, end in words:
            start = min(start, duration)
            end = min(end, duration)
            kept.append(Word(word, start, end))
        return kept

    @torch.no_grad()
    def log_probs(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the log-probabilities of CTC, (N, C) of each of the features (B, T, M)."""
        device = device_of(self.model)
        features = features.to(device)
        _, states, counts = ctc_search.ctc_inputs(self.model, features, lengths)
        found = []
        for padded, count in zip(states, counts.tolist(), strict=True):
            own = padded[:count]
            logits = self.classes.logits(own)
            logs = logits.float().log_softmax(-1)
            found.append(logs)
        return found


def between_pauses(
    words: Sequence[Word], voiced: np.ndarray, step_s: float, frame_s: float
) -> list[Word]:
    """Let pauses say when words begin and end, where CTC gave them as spikes of ``frame_s``.

    ``voiced`` (steps,) says of every ``step_s`` whether it is no pause. Between the spikes of two
    words the longest pause parts them: one word ends where it begins, the next begins where it
    ends. Where there is none, a word begins half a frame before its first spike, and lasts until
    nobody speaks or the next one begins.
    """
    half = frame_s / 2
    duration = len(voiced) * step_s
    spikes = [word.start for word in words]
    starts = [max(0.0, spike - half) for spike in spikes]
    spikes.append(duration)
    starts.append(duration)

    out = []
    for i, word in enumerate(words):
        following = i + 1
        first, last = _steps(word.end, spikes[following], step_s)
        quiet = ~voiced[first:last]
        begin, end = longest_run(quiet)
        pause_s = (end - begin) * step_s
        if pause_s >= PAUSE_S:
            ends = (first + begin) * step_s
            starts[following] = (first + end) * step_s
        else:
            ends = _falls_silent(word, voiced, starts[i], starts[following], step_s)
        start = starts[i]
        ends = max(start, ends)
        out.append(Word(word.text, start, ends))
    return out


def _falls_silent(
    word: Word, voiced: np.ndarray, start: float, limit: float, step_s: float
) -> float:
    """Return the end of the last voiced step from ``start`` to ``limit``, s; without one, where CTC
    ended the word."""
    first, last = _steps(start, limit, step_s)
    heard = voiced[first:last]
    spoken = np.flatnonzero(heard)
    end = word.end
    if len(spoken):
        latest = first + int(spoken[-1])
        end = (latest + 1) * step_s
    return min(end, limit)


def _steps(start: float, end: float, step_s: float) -> tuple[int, int]:
    """Return the first step of a stretch in seconds and one past its last."""
    first = round(start / step_s)
    last = round(end / step_s)
    return first, max(first, last)

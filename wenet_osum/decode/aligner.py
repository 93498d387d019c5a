"""The times of known words in speech, by the CTC of a model.

For transcripts of a corpus (tools/force_align.py), and for the words that the LLM has answered
(``--word_times ctc``).

Letters: B utterances, T frames of the longest, M mel bins, N states, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from wenet_osum.corpus.forced_align import force_align, spelling
from wenet_osum.corpus.match_words import Unmatched
from wenet_osum.decode import ctc_greedy
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
        ctc_greedy.check_model(model, "forced alignment")
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

    def retime(self, batch: Batch, answers: Iterable[Hypothesis]) -> None:
        """Give the words of a batch's answers their times by CTC, in place.

        Words that cannot be aligned keep those of the LLM, and the answer is flagged. Of a
        conversation the last recording is read.
        """
        timed = [(number, answer) for number, answer in enumerate(answers) if answer.words]
        if not timed:
            return
        lengths = batch.feature_lengths.cpu()
        logs = self.log_probs(batch.features, lengths)
        rows = list(range(len(lengths)))
        if batch.turns is not None:
            rows = batch.turns.last_recordings().tolist()
        for number, answer in timed:
            row = rows[number]
            features = batch.features[row, : int(lengths[row])].cpu()
            text = join_words([word.text for word in answer.words])
            try:
                found = self._words(logs[row], features, text)
            except Unmatched:
                found = []
            if len(found) != len(answer.words):
                answer.flags.append(NOT_ALIGNED)
                continue
            pairs = zip(answer.words, found, strict=True)
            answer.words = [said._replace(start=at.start, end=at.end) for said, at in pairs]

    def _words(self, logs: Tensor, features: Tensor, text: str) -> list[Word]:
        """Align a text by the log-probabilities (N, C) of features (T, M)."""
        words = force_align(
            logs, text, self.encode, self.classes.blank, self.frame_s, self.gap_s or 0.0
        )
        if self.gap_s is None:
            voiced = voiced_frames(features.float().numpy())
            words = between_pauses(words, voiced, FRAME_S, self.frame_s)

        # The last state may reach beyond the end.
        duration = len(features) * FRAME_S
        kept = []
        for word, start, end in words:
            within = Word(word, min(start, duration), min(end, duration))
            kept.append(within)
        return kept

    @torch.no_grad()
    def log_probs(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the log-probabilities of CTC, (N, C) of each of the features (B, T, M)."""
        device = device_of(self.model)
        _, states, sizes = ctc_greedy.hear(self.model, features.to(device), lengths)
        found = []
        for row, count in enumerate(sizes.tolist()):
            logits = self.classes.logits(states[row, :count])
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
    steps = len(voiced)
    starts = [max(0.0, word.start - frame_s / 2) for word in words]
    starts.append(steps * step_s)
    spikes = [word.start for word in words]
    spikes.append(steps * step_s)
    out = []
    for i, word in enumerate(words):
        first, last = _steps(word.end, spikes[i + 1], step_s)
        begin, end = longest_run(~voiced[first:last])
        if (end - begin) * step_s >= PAUSE_S:
            ends = (first + begin) * step_s
            starts[i + 1] = (first + end) * step_s
        else:
            ends = _falls_silent(word, voiced, starts[i], starts[i + 1], step_s)
        ends = max(starts[i], ends)
        out.append(word._replace(start=starts[i], end=ends))
    return out


def _falls_silent(
    word: Word, voiced: np.ndarray, start: float, limit: float, step_s: float
) -> float:
    """Return the end of the last voiced step from ``start`` to ``limit``, s; without one, where CTC
    ended the word."""
    first, last = _steps(start, limit, step_s)
    spoken = np.flatnonzero(voiced[first:last])
    end = word.end
    if len(spoken):
        end = (first + int(spoken[-1]) + 1) * step_s
    return min(end, limit)


def _steps(start: float, end: float, step_s: float) -> tuple[int, int]:
    """Return the first step of a stretch in seconds and one past its last."""
    first = round(start / step_s)
    return first, max(first, round(end / step_s))

"""The times of known words in a recording, by the CTC of a model (tools/force_align.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wenet_osum.corpus.forced_align import force_align, spelling, until_quiet
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.decode import ctc_greedy
from wenet_osum.decode.pauses import STEP_S, voiced_steps
from wenet_osum.models import build
from wenet_osum.models.ctc_scores import scoring_of
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import SAMPLE_RATE, Word
from wenet_osum.text.template import Template


class Aligner:
    """Finds the words of a transcript in audio with the CTC of a model.

    ``to_quiet``: words last until their voice falls silent. Raises ValueError for a model without
    CTC.
    """

    def __init__(self, folder: str, device: str, gap_s: float, to_quiet: bool) -> None:
        self.device = device
        # Where the voice tells how long words last, nothing is to be split.
        self.gap_s = 0.0 if to_quiet else gap_s
        self.to_quiet = to_quiet
        self.model = build.load(folder).to(device).eval()
        ctc_greedy.check_model(self.model, "forced alignment")
        self.classes = self.model.speech_classes()
        losses = getattr(self.model.config, "losses", None)
        scoring = scoring_of(losses)
        template = Template.load(folder)
        self.encode = spelling(template.tokenizer, scoring.classes, template.lowercase)

        # Of a state: those of the encoder, or what the adapter of a speech LLM makes of them.
        self.frame_s = self.model.encoder.state_s
        if isinstance(self.model, OsumModel):
            self.frame_s = self.model.embedding_s

    def words(self, audio: np.ndarray, text: str) -> list[Word]:
        """Return the words of ``text`` with their times in ``audio`` (samples).

        Raises Unmatched for a text that cannot be aligned.
        """
        logs = self.log_probs(audio)
        words = force_align(
            logs,
            text,
            self.encode,
            self.classes.blank,
            self.frame_s,
            self.gap_s,
        )
        if self.to_quiet:
            voiced = voiced_steps(audio, SAMPLE_RATE)
            words = until_quiet(words, voiced, STEP_S, self.frame_s)

        # The last state may reach beyond the end.
        duration = len(audio) / SAMPLE_RATE
        kept = []
        for text, start, end in words:
            within = Word(text, min(start, duration), min(end, duration))
            kept.append(within)
        return kept

    @torch.no_grad()
    def log_probs(self, audio: np.ndarray) -> Tensor:
        """Return the log-probabilities of CTC, (frames, classes)."""
        features = log_mel(audio, self.model.encoder.mels)
        batch = features[None].to(self.device)
        lengths = torch.tensor([len(features)])
        _, states, lengths = ctc_greedy.hear(self.model, batch, lengths)
        count = int(lengths[0])
        logits = self.classes.logits(states[0, :count])
        return logits.float().log_softmax(-1)

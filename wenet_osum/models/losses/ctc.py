"""Connectionist temporal classification of the transcript (Graves et al., 2006).

Kind osum: on the adapter's output, with the LLM's own token embeddings, all or some, as classes and
the end of text, which no transcript holds, as blank. It brings speech to where the words lie that
are spoken, which a frozen or small LLM can then repeat. Kind whisper: on the encoder, with a linear head.

Letters: B utterances, N states of the longest, V classes, C tokens of all transcripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.models.ctc_scores import SHARPNESS, CTCScores, Scoring
from wenet_osum.models.objective import Speech, UtteranceLosses
from wenet_osum.text import ctc_classes
from wenet_osum.text.timing import ANY_TIME

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

MARGIN_S = 0.05  # how far from its word's time a token may be spoken
BORDER_S = 0.03  # how far inside a word blanks begin to be excluded; a repeated word needs one at its border
EXCLUDED = -20.0  # nats added to what is spoken at another time
IMPOSSIBLE = "ctc: transcript longer than its frames"
NOT_WRITTEN = "ctc: transcript has characters that no class writes"
UNWRITABLE = -1  # in the place of classes


class Loss:
    """CTC on speech states.

    ``word_times``: where the corpus has word times, paths that speak a token outside its word count
    next to nothing. ``blanks_in_words`` False: and there is no blank inside a word, so that all of
    its states learn from it and not only the one where CTC puts its spike.

    The others are for kind osum. ``scores``: ``dot`` or ``distance``, with its ``sharpness``
    (models/ctc_scores.py). ``classes``: a file of token texts that are the classes
    (text/ctc_classes.py), or a model folder whose classes are used; None: all tokens of the LLM.
    ``commitment``: weight of the distance between states and their tokens, 0: off.
    """

    kinds = ("osum", "whisper")
    needs_logits = True

    def __init__(
        self,
        template: Template,
        word_times: bool = False,
        blanks_in_words: bool = True,
        scores: str = "dot",
        classes: str | Sequence[int] | None = None,
        commitment: float = 0.0,
        sharpness: float = SHARPNESS,
    ) -> None:
        if not blanks_in_words and not word_times:
            raise ValueError("blanks_in_words: false needs word_times: true, which says where words are")
        if not commitment >= 0:
            raise ValueError(f"commitment {commitment} must be 0 (off) or more")
        self.template, self.word_times, self.blanks_in_words = template, word_times, blanks_in_words
        self.commitment, self.encoder = commitment, None
        if isinstance(classes, (str, Path)):
            classes = ctc_classes.read(template.tokenizer, classes)
        if classes is not None:
            self.encoder = ctc_classes.ClassEncoder(template.tokenizer, classes)
        self.scoring = Scoring(scores, self.encoder and self.encoder.ids, sharpness)
        # The ids themselves, so that a model folder needs no file beside it.
        self.kept = {} if self.encoder is None else {"classes": list(self.encoder.ids)}
        self.name = "transcript_ids" if self.encoder is None else "transcript_classes"

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``transcript_ids`` (C,), or with ``classes`` ``transcript_classes`` (C,), and with
        ``word_times`` their times (C, 2), s.

        A transcript that the classes cannot write is the one class ``UNWRITABLE``.
        """
        if self.encoder is None:
            ids, times = self.template.transcript(utterance)
        else:
            tokens, times = self.template.transcript(utterance, self.encoder.tokenizer)
            ids = self.encoder.classes(tokens)
            if ids is None:
                ids, times = [UNWRITABLE], [ANY_TIME]
        found = {self.name: torch.tensor(ids, dtype=torch.int64)}
        if self.word_times:
            found[self._times] = torch.tensor(times, dtype=torch.float32).view(-1, 2)
        return found

    @property
    def _times(self) -> str:
        return "transcript_times" if self.encoder is None else "transcript_class_times"

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses. Those of transcripts longer than their frames, or that the classes
        cannot write, are 0, and counted."""
        ids, id_lengths = targets[self.name], targets[f"{self.name}_lengths"]
        unwritable = _rows_with(UNWRITABLE, ids, id_lengths)
        with torch.autocast(speech.states.device.type, enabled=False):
            compared = self._scores(speech)
            logs = compared.logits(speech.states) if compared else speech.logits().float()
            logs = logs.log_softmax(-1)
            values, impossible = ctc_losses(
                logs,
                speech.lengths,
                ids.clamp(min=0),
                id_lengths,
                compared.blank if compared else speech.blank,
                targets[self._times] if self.word_times else None,
                speech.fixed_state_s() if self.word_times else 0.0,
                self.blanks_in_words,
            )
            values = values.masked_fill(unwritable.to(values.device), 0.0)
            if self.commitment:
                pull = commitment(speech.states, speech.lengths, compared, logs)
                values = values + self.commitment * _at_most(pull, values)
        left_out = {IMPOSSIBLE: impossible}
        if self.encoder is not None:
            left_out[NOT_WRITTEN] = unwritable.sum()
        return UtteranceLosses(values, left_out)

    def _scores(self, speech: Speech) -> CTCScores | None:
        """Return how states are compared with the LLM's tokens; None: the model has a head of its
        own. Raises ValueError for keys that such a model has no use for."""
        if speech.table is not None:
            return self.scoring.over(speech.table, speech.blank)
        if self.scoring != Scoring() or self.commitment:
            raise ValueError(
                "model.losses ctc: scores, classes, sharpness and commitment are for kind osum, whose "
                "classes are the LLM's tokens; leave them out for kind whisper"
            )
        return None


def commitment(
    states: Tensor, lengths: Tensor, compared: CTCScores, logs: Tensor
) -> Tensor:
    """Return Σ ‖s - q‖² / √H of each utterance (B,), over its ``lengths`` states (B, N, H) that are
    not blank, q the embedding of the likeliest class by ``logs`` (B, N, C) (DirectSpeech2LLM).

    It brings states to where the LLM knows them; CTC alone is as content with what lies far beyond.
    """
    best = logs.detach().argmax(-1)
    spoken = (best != compared.blank) & _exists(lengths, best.shape[1], best.device)
    squares = (states.float() - compared.tokens[best]).square().sum(-1)
    return (squares * spoken).sum(1) / states.shape[-1] ** 0.5


def _at_most(values: Tensor, bounds: Tensor) -> Tensor:
    """Scale ``values`` (B,) down to ``bounds`` (B,) where they are above; their gradient keeps its
    direction, where that of a clamp would end."""
    scale = (bounds / values.clamp(min=1e-12)).clamp(max=1.0).detach()
    return scale * values


def _rows_with(mark: int, ids: Tensor, lengths: Tensor) -> Tensor:
    """Return (B,) bool: whether ``mark`` is among the ids (C,) of each row."""
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths.cpu())
    found = torch.zeros(len(lengths), dtype=torch.bool)
    found[rows[(ids == mark).cpu()]] = True
    return found


def _exists(lengths: Tensor, longest: int, device: torch.device) -> Tensor:
    """Return (B, N) bool: True for states that exist."""
    return (torch.arange(longest) < lengths.cpu()[:, None]).to(device)


def ctc_losses(
    logs: Tensor,
    lengths: Tensor,
    ids: Tensor,
    id_lengths: Tensor,
    blank: int,
    times: Tensor | None = None,
    state_s: float = 0.0,
    blanks_in_words: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute the CTC loss of each utterance (B,), 0 where it is impossible, and count the
    impossible ones.

    ``logs`` (B, N, V) are log-softmax scores of ``lengths`` (B,) states of ``state_s`` seconds,
    ``ids`` (C,) the tokens of all transcripts end to end, ``times`` (C, 2) when each is spoken,
    infinite where it is not known (alignment constraint: Senior et al., 2015, "Acoustic modeling
    with CD-CTC-sMBR LSTM RNNs").
    """
    allowed_share = None
    if times is not None and bool(times.isfinite().any()):
        constrained = logs + _constraint(logs, ids, id_lengths, blank, times, state_s, blanks_in_words)
        # The gradient of torch's CTC takes for granted that the probabilities of a state add up to one. So they are
        # normalized over what is allowed, and the share of what is allowed goes into the loss afterwards.
        share = constrained.logsumexp(-1)
        logs = constrained - share[..., None]
        exists = _exists(lengths, share.shape[1], share.device)
        allowed_share = (share * exists).sum(1)
    logs, id_lengths = logs.transpose(0, 1), id_lengths.cpu()
    losses = functional.ctc_loss(logs, ids, lengths, id_lengths, blank=blank, reduction="none")
    bad = losses.detach().isinf()
    if bool(bad.any()):
        # An infinite loss has NaN gradients. zero_infinity makes both zero, but hides how many there were.
        losses = functional.ctc_loss(logs, ids, lengths, id_lengths, blank=blank, reduction="none", zero_infinity=True)
    if allowed_share is not None:
        losses = losses - allowed_share.masked_fill(bad, 0.0)
    return losses, bad.sum()


def _constraint(
    logs: Tensor, ids: Tensor, id_lengths: Tensor, blank: int, times: Tensor, state_s: float, blanks_in_words: bool
) -> Tensor:
    """Return what to add to ``logs``: 0 for what may be spoken in a state, ``EXCLUDED`` for
    everything else."""
    rows = torch.repeat_interleave(torch.arange(len(id_lengths)), id_lengths.cpu()).to(ids.device)
    starts, ends = times[:, :1], times[:, 1:]
    begins = torch.arange(logs.shape[1], device=times.device) * state_s
    added = torch.full_like(logs, EXCLUDED, dtype=torch.float32)
    # A token may be spoken in the states of its word, and a little around it.
    spoken = (begins + state_s > starts - MARGIN_S) & (begins < ends + MARGIN_S)
    token, state = spoken.nonzero(as_tuple=True)
    added[rows[token], state, ids[token]] = 0.0
    added[..., blank] = 0.0
    if not blanks_in_words:
        inside = (begins > starts + BORDER_S) & (begins + state_s < ends - BORDER_S) & starts.isfinite()
        token, state = inside.nonzero(as_tuple=True)
        added[rows[token], state, blank] = EXCLUDED
    return added

"""Connectionist temporal classification of the transcript (Graves et al., 2006).

Kind osum: on the adapter's output, with the LLM's own token embeddings, all or some, as classes and
the end of text, which no transcript holds, as blank. It brings speech to where the words lie that
are spoken, which a frozen or small LLM can then repeat. Kind whisper: on the encoder, with a linear
head over Whisper's tokens, all or some.

Letters: B utterances, N states of the longest, V classes, C tokens of all transcripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.devices import to_device
from wenet_osum.models.ctc_scores import SHARPNESS, CTCScores, Scoring
from wenet_osum.models.objective import Speech, UtteranceLosses
from wenet_osum.text import ctc_classes
from wenet_osum.text.timing import ANY_TIME, Span

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

# How far from its word's time a token may be spoken.
MARGIN_S = 0.05
# How far inside a word blanks begin to be excluded; a repeated word needs one at its border.
BORDER_S = 0.03
# Nats added to what is spoken at another time.
EXCLUDED = -20.0
# Reasons for which an utterance is left out.
IMPOSSIBLE = "ctc: transcript longer than its frames"
NOT_WRITTEN = "ctc: transcript has characters that no class writes"
NO_TRANSCRIPT = "ctc: no transcript"
# Marks in the place of a transcript's classes.
UNWRITABLE = -1
MISSING = -2


class Loss:
    """CTC on speech states.

    ``word_times``: where the corpus has word times, paths that speak a token outside its word count
    next to nothing. ``blanks_in_words`` False: and there is no blank inside a word, so that all of
    its states learn from it and not only the one where CTC puts its spike.

    ``classes``: a file of token texts that are the classes (text/ctc_classes.py), or a model folder
    whose classes are used; None: all tokens, of which a published vocabulary has so many that they
    cost more than the encoder.

    The others are for kind osum. ``scores``: ``dot`` or ``distance``, with its ``sharpness``
    (models/ctc_scores.py). ``commitment``: weight of the distance between states and their tokens,
    0: off.

    An utterance without a transcript, such as a clip that has only a label, is left out and
    counted: nobody knows that nothing is said in it. An empty transcript says so, and is learned as
    blanks.
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
            raise ValueError(
                "blanks_in_words: false needs word_times: true, which says where words are"
            )
        if not commitment >= 0:
            raise ValueError(f"commitment {commitment} must be 0 (off) or more")
        self.template = template
        self.word_times = word_times
        self.blanks_in_words = blanks_in_words
        self.commitment = commitment

        # Writes transcripts with the classes; None: with all tokens.
        self.encoder = _class_encoder(template, classes)
        ids = None if self.encoder is None else self.encoder.ids
        self.scoring = Scoring(scores, ids, sharpness)
        # The ids themselves, so that a model folder needs no file beside it.
        self.kept = {} if ids is None else {"classes": list(ids)}

        # What the targets are called in a batch.
        self.name = "transcript_ids" if ids is None else "transcript_classes"
        self.times_name = "transcript_times" if ids is None else "transcript_class_times"

    def has_target(self, utterance: Utterance) -> bool:
        """Return whether there is a transcript, be it empty."""
        return utterance.txt is not None

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``transcript_ids`` (C,), or with ``classes`` ``transcript_classes`` (C,), and with
        ``word_times`` their times (C, 2), s.

        A transcript that is not known is the one class ``MISSING``, one that the classes cannot
        write ``UNWRITABLE``.
        """
        ids, times = self._written(utterance)
        found = {self.name: torch.tensor(ids, dtype=torch.int64)}
        if self.word_times:
            spans = torch.tensor(times, dtype=torch.float32)
            # Also of no token at all the shape is (0, 2).
            found[self.times_name] = spans.view(-1, 2)
        return found

    def _written(self, utterance: Utterance) -> tuple[list[int], list[Span]]:
        """Return the classes of a transcript, or a mark, and when each is spoken."""
        if not self.has_target(utterance):
            return [MISSING], [ANY_TIME]
        if self.encoder is None:
            return self.template.transcript(utterance)
        tokens, times = self.template.transcript(utterance, self.encoder.tokenizer)
        ids = self.encoder.classes(tokens)
        if ids is None:
            return [UNWRITABLE], [ANY_TIME]
        return ids, times

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch.

        Those of transcripts that are missing, longer than their frames, or that the classes cannot
        write are 0, and counted.
        """
        ids = targets[self.name]  # (C,)
        id_lengths = targets[f"{self.name}_lengths"]  # (B,)
        missing = _rows_with(MISSING, ids, id_lengths)
        unwritable = _rows_with(UNWRITABLE, ids, id_lengths)

        # The product is in the dtype of training, all that follows in float32.
        compared = self._scores(speech)
        logits = compared.logits(speech.states) if compared else speech.logits()
        with torch.autocast(speech.states.device.type, enabled=False):
            logs = logits.log_softmax(-1, dtype=torch.float32)  # (B, N, V)
            # The largest tensor of a step is not needed again.
            del logits
            values, impossible = ctc_losses(
                logs,
                speech.lengths,
                ids.clamp(min=0),
                id_lengths,
                compared.blank if compared else speech.blank,
                times=targets[self.times_name] if self.word_times else None,
                state_s=speech.fixed_state_s() if self.word_times else 0.0,
                blanks_in_words=self.blanks_in_words,
            )

            # Rows without classes have none of it, nor a gradient.
            values = values.masked_fill(missing | unwritable, 0.0)
            if self.commitment:
                pull = commitment(speech.states, speech.lengths, compared, logs)
                values = values + self.commitment * _at_most(pull, values)

        left_out = {IMPOSSIBLE: impossible, NO_TRANSCRIPT: missing.sum()}
        if self.encoder is not None:
            left_out[NOT_WRITTEN] = unwritable.sum()
        return UtteranceLosses(values, left_out)

    def _scores(self, speech: Speech) -> CTCScores | None:
        """Return how states are compared with the LLM's tokens; None: the model has a head of its
        own.

        Raises ValueError for keys that such a model has no use for.
        """
        if speech.table is not None:
            return self.scoring.over(speech.table, speech.blank)
        linear = Scoring(classes=self.scoring.classes)
        if self.scoring != linear or self.commitment:
            raise ValueError(
                "model.losses ctc: scores, sharpness and commitment are for kind osum, "
                "whose classes are the LLM's tokens; leave them out for kind whisper"
            )
        return None


def _class_encoder(
    template: Template, classes: str | Sequence[int] | None
) -> ctc_classes.ClassEncoder | None:
    """Return what writes transcripts with ``classes``; None: all tokens are classes."""
    if classes is None:
        return None
    if isinstance(classes, (str, Path)):
        classes = ctc_classes.read(template.tokenizer, classes)
    return ctc_classes.ClassEncoder(template.tokenizer, classes)


def commitment(states: Tensor, lengths: Tensor, compared: CTCScores, logs: Tensor) -> Tensor:
    """Return Σ ‖s - q‖² / √H of each utterance (B,) (DirectSpeech2LLM).

    The sum is over its ``lengths`` states (B, N, H) that are not blank, and q the embedding of the
    likeliest class by ``logs`` (B, N, V). It pulls states to where the LLM knows them; CTC alone
    accepts states far beyond.
    """
    best = logs.detach().argmax(-1)  # (B, N)
    longest = best.shape[1]
    exists = _exists(lengths, longest, best.device)
    spoken = exists & (best != compared.blank)
    distances = states.float() - compared.tokens[best].float()  # (B, N, H)
    squares = distances.square().sum(-1)
    total = (squares * spoken).sum(1)
    width = states.shape[-1]
    return total / math.sqrt(width)


def _at_most(values: Tensor, bounds: Tensor) -> Tensor:
    """Scale ``values`` (B,) down to ``bounds`` (B,) where they are above.

    Their gradient keeps its direction, where that of a clamp would end.
    """
    positive = values.clamp(min=1e-12)
    scale = (bounds / positive).clamp(max=1.0)
    return scale.detach() * values


def _rows_with(mark: int, ids: Tensor, lengths: Tensor) -> Tensor:
    """Return (B,) bool: whether ``mark`` is among the ids (C,) of each row."""
    return _counted(ids == mark, lengths) > 0


def _counted(which: Tensor, lengths: Tensor) -> Tensor:
    """Count in each row which of its ids (C,) bool are meant: (B,) int64, where they lie."""
    rows = to_device(_rows(lengths), which.device)
    ones = which.long()
    counts = ones.new_zeros(len(lengths))
    return counts.index_add(0, rows, ones)


def _rows(lengths: Tensor) -> Tensor:
    """Return the row of each id, (C,) on the CPU."""
    numbers = torch.arange(len(lengths))
    return torch.repeat_interleave(numbers, lengths.cpu())


def _exists(lengths: Tensor, longest: int, device: torch.device) -> Tensor:
    """Return (B, N) bool: True for states that exist."""
    places = torch.arange(longest)
    exists = places < lengths.cpu()[:, None]
    return to_device(exists, device)


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
    ``ids`` (C,) the tokens of all transcripts end to end, ``times`` (C, 2), on the CPU, when each
    is spoken, infinite where it is not known (alignment constraint: Senior et al., 2015, "Acoustic
    modeling with CD-CTC-sMBR LSTM RNNs").
    """
    allowed_share = None
    if times is not None and bool(times.isfinite().any()):
        constraint = _constraint(logs, ids, id_lengths, blank, times, state_s, blanks_in_words)
        constrained = logs + constraint

        # The gradient of torch's CTC takes for granted that the probabilities of a state add up to
        # one. So they are normalized over what is allowed, and the share of what is allowed goes
        # into the loss afterwards.
        share = constrained.logsumexp(-1)  # (B, N)
        logs = constrained - share[..., None]
        exists = _exists(lengths, share.shape[1], share.device)
        allowed_share = (share * exists).sum(1)

    losses, impossible = _torch_losses(logs, lengths, ids, id_lengths, blank)
    if allowed_share is not None:
        losses = losses - allowed_share.masked_fill(impossible, 0.0)
    return losses, impossible.sum()


def _torch_losses(
    logs: Tensor, lengths: Tensor, ids: Tensor, id_lengths: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """Return torch's CTC loss (B,), 0 where it is impossible, and (B,) bool: where it is.

    Which ones are is counted, for to look at the losses would be to wait for the device.
    """
    impossible = _impossible(lengths, ids, id_lengths)
    losses = functional.ctc_loss(
        logs.transpose(0, 1),  # (N, B, V), as torch takes them
        ids,
        lengths,
        id_lengths.cpu(),
        blank=blank,
        reduction="none",
        # An infinite loss would have NaN gradients.
        zero_infinity=True,
    )
    return losses, impossible


def _impossible(lengths: Tensor, ids: Tensor, id_lengths: Tensor) -> Tensor:
    """Return (B,) bool: the row's states are too few for its ids, between two equal ones of which a
    blank must stand."""
    same = torch.zeros_like(ids, dtype=torch.bool)
    same[1:] = ids[1:] == ids[:-1]

    # The first of a row follows none.
    rows = _rows(id_lengths)
    follows = torch.zeros_like(rows, dtype=torch.bool)
    follows[1:] = rows[1:] == rows[:-1]
    follows = to_device(follows, ids.device)
    blanks = _counted(same & follows, id_lengths)
    spare = lengths.cpu() - id_lengths.cpu()
    return blanks > to_device(spare, ids.device)


def _constraint(
    logs: Tensor,
    ids: Tensor,
    id_lengths: Tensor,
    blank: int,
    times: Tensor,
    state_s: float,
    blanks_in_words: bool,
) -> Tensor:
    """Return what to add to ``logs`` (B, N, V): 0 for what may be spoken in a state, ``EXCLUDED``
    for everything else."""
    states = logs.shape[1]
    rows = _rows(id_lengths)  # (C,)
    starts, ends = times[:, :1], times[:, 1:]  # (C, 1)
    begins = torch.arange(states) * state_s  # (N,)
    over = begins + state_s
    known = starts.isfinite()
    added = torch.full_like(logs, EXCLUDED, dtype=torch.float32)

    # A token may be spoken in the states of its word, and a little around it. What is worked out
    # from times is on the CPU.
    spoken = (over > starts - MARGIN_S) & (begins < ends + MARGIN_S)  # (C, N)
    token, state = spoken.nonzero(as_tuple=True)
    device = logs.device
    row = to_device(rows[token], device)
    state = to_device(state, device)
    token = to_device(token, device)
    allowed = torch.zeros((), device=device)
    added.index_put_((row, state, ids[token]), allowed)

    # Between and in words there may be silence, or between them alone.
    added[..., blank] = 0.0
    if not blanks_in_words:
        inside = (begins > starts + BORDER_S) & (over < ends - BORDER_S) & known
        token, state = inside.nonzero(as_tuple=True)
        row = to_device(rows[token], device)
        state = to_device(state, device)
        silence = added[..., blank]
        silence.index_put_((row, state), allowed + EXCLUDED)
    return added

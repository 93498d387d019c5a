"""Connectionist temporal classification of the transcript (Graves et al., 2006).

Kind osum: on the adapter's output, with the LLM's own token embeddings as classes and the end of
text, which no transcript holds, as blank. It brings speech to where the words lie that are spoken,
which a frozen or small LLM can then repeat. Kind whisper: on the encoder, with a linear head.

Letters: B utterances, N states of the longest, V classes, C tokens of all transcripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.models.objective import Speech, UtteranceLosses

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

MARGIN_S = 0.05  # how far from its word's time a token may be spoken
BORDER_S = 0.03  # how far inside a word blanks begin to be excluded; a repeated word needs one at its border
EXCLUDED = -20.0  # nats added to what is spoken at another time
IMPOSSIBLE = "ctc: transcript longer than its frames"


class Loss:
    """CTC on speech states.

    ``word_times``: where the corpus has word times, paths that speak a token outside its word count
    next to nothing. ``blanks_in_words`` False: and there is no blank inside a word, so that all of
    its states learn from it and not only the one where CTC puts its spike.
    """

    kinds = ("osum", "whisper")
    needs_logits = True

    def __init__(self, template: Template, word_times: bool = False, blanks_in_words: bool = True) -> None:
        if not blanks_in_words and not word_times:
            raise ValueError("blanks_in_words: false needs word_times: true, which says where words are")
        self.template, self.word_times, self.blanks_in_words = template, word_times, blanks_in_words

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``transcript_ids`` (C,) and, with ``word_times``, ``transcript_times`` (C, 2),
        s."""
        ids, times = self.template.transcript(utterance)
        found = {"transcript_ids": torch.tensor(ids, dtype=torch.int64)}
        if self.word_times:
            found["transcript_times"] = torch.tensor(times, dtype=torch.float32).view(-1, 2)
        return found

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses; those of transcripts longer than their frames are 0, and counted."""
        with torch.autocast(speech.states.device.type, enabled=False):
            logs = speech.logits().float().log_softmax(-1)
            values, impossible = ctc_losses(
                logs,
                speech.lengths,
                targets["transcript_ids"],
                targets["transcript_ids_lengths"],
                speech.blank,
                targets["transcript_times"] if self.word_times else None,
                speech.fixed_state_s() if self.word_times else 0.0,
                self.blanks_in_words,
            )
        return UtteranceLosses(values, {IMPOSSIBLE: impossible})


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
        exists = (torch.arange(share.shape[1]) < lengths.cpu()[:, None]).to(share)
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

"""Phase 1: a whole Whisper, encoder and decoder, on the same targets as the speech LLM, with a CTC
head on the encoder if wanted.

Letters: B utterances, T frames of the longest, N encoder states, U decoder tokens of the longest, P
prompt and A answer tokens of all utterances, D width, V vocabulary, C classes of CTC.

The decoder reads: its start token, prompt, answer; the loss is on the answer tokens. Rows are
padded on the right, where causal attention cannot look; cross-attention sees an utterance's own
states only.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    EncoderDecoderCache,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.utils import cached_file

from wenet_osum.devices import to_device
from wenet_osum.models import dtypes, split, trainable
from wenet_osum.models.ctc_scores import SpeechClasses, scoring_of
from wenet_osum.models.encoder.whisper import Encoder
from wenet_osum.models.lengths import key_mask, spans
from wenet_osum.models.loss import LossOutput, token_losses
from wenet_osum.models.objective import Objective, Speech, trained_with

if TYPE_CHECKING:
    from wenet_osum.records import Batch

CTC_FILE = "ctc_head.safetensors"
HEAD = "ctc_head."


class WhisperPhase(nn.Module):
    """A Whisper whose parts are named ``encoder``, ``decoder``, ``proj_out`` (tied to the decoder's
    embeddings) and ``ctc_head``."""

    training: bool

    def __init__(self, whisper: WhisperForConditionalGeneration) -> None:
        super().__init__()
        parts = whisper.model
        if not isinstance(parts.encoder, Encoder):
            parts.encoder = _true_length(parts.encoder)
        # In a tuple: its modules are registered below, under shorter names.
        self._whisper = (whisper,)
        self.encoder = parts.encoder
        self.decoder = parts.decoder
        self.proj_out = whisper.proj_out
        # There when the folder has one, or a loss needs it.
        self.ctc_head: nn.Linear | None = None
        # What a training run trains to (set_objective).
        self.objective = Objective()

    @property
    def config(self) -> WhisperConfig:
        """The Whisper's configuration."""
        return self._whisper[0].config

    @property
    def ctc_classes(self) -> tuple[int, ...] | None:
        """Token ids that are CTC's classes beside the blank; None: the whole vocabulary."""
        losses = getattr(self.config, "losses", None)
        return scoring_of(losses).classes

    @property
    def blank(self) -> int:
        """CTC's blank: the class after all others."""
        classes = self.ctc_classes
        return self.config.vocab_size if classes is None else len(classes)

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.encoder.conv1.weight.device

    # -- training: the loss of a batch --------------------------------------------------------

    def forward(self, batch: Batch) -> LossOutput:
        """Compute the loss of a batch as the model's objective says.

        Raises ValueError for texts beyond the decoder's positions, and for conversations.
        """
        if batch.turns is not None:
            raise ValueError(
                "phase 1's decoder hears one recording, and this micro-batch has conversations of "
                "several turns; train them with kind osum"
            )
        states, lengths = split.encode(self.encoder, batch)  # (B, N, D)
        speech = Speech(
            states,
            lengths,
            state_s=self.encoder.state_s,
            logits=partial(self.token_logits, states),
            blank=self.blank,
        )
        answers = partial(self._answers, batch, states, lengths)
        answering = {"decoder": self.decoder, "proj_out": self.proj_out}
        return self.objective(batch, speech, answers, answering)

    def _answers(self, batch: Batch, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder by teacher forcing: losses and correctness of the answer tokens (A,)."""
        prompts = batch.prompt_lengths.cpu()
        answers = batch.answer_lengths.cpu()
        ids = self._decoder_input(batch.prompt_ids, prompts, batch.answer_ids, answers)
        hidden = self._decode(ids, states, lengths)  # (B, U, D)

        # What says the first answer token is the state of the last prompt token, or of the start
        # token where there is no prompt.
        rows, longest = ids.shape
        first = torch.arange(rows) * longest + prompts
        before = spans(first, answers)
        hidden = hidden.flatten(0, 1)
        hidden = hidden[to_device(before, hidden.device)]  # (A, D)
        return token_losses(self.proj_out, hidden, batch.answer_ids)

    def _decode(self, ids: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
        """Run the decoder on ``ids`` (B, U) over the states of each utterance: (B, U, D)."""
        mask = key_mask(lengths, states.shape[1], states.device)
        return run_decoder(self.decoder, ids, states, mask)

    def _decoder_input(
        self, prompt_ids: Tensor, prompts: Tensor, answer_ids: Tensor, answers: Tensor
    ) -> Tensor:
        """Lay out start token, prompt, answer without its last token: (B, U), padded on the right
        with the start token."""
        rows = prompts + answers.clamp(min=1)
        longest, limit = int(rows.max()), self.config.max_target_positions
        if longest > limit:
            raise ValueError(
                f"prompt and answer have {longest} tokens, the Whisper decoder reaches {limit}; "
                "lower filter.max_target_tokens"
            )

        # The source: all prompts, all answers, the start token.
        start_id = self.config.decoder_start_token_id
        start = torch.full((1,), start_id, device=prompt_ids.device)
        source = torch.cat([prompt_ids, answer_ids, start])
        start_place = len(source) - 1

        # Where the three pieces of each utterance begin in it, and their lengths, (B, 3).
        prompt = prompts.cumsum(0) - prompts
        answer = answers.cumsum(0) - answers
        starts = [torch.full_like(prompts, start_place), prompt, len(prompt_ids) + answer]
        lengths = [torch.ones_like(prompts), prompts, (answers - 1).clamp(min=0)]
        starts, lengths = torch.stack(starts, dim=1), torch.stack(lengths, dim=1)

        # Rows of places in the source, filled up with that of the start token.
        places = torch.full((len(rows), longest), start_place)
        valid = torch.arange(longest) < rows[:, None]
        places[valid] = spans(starts.flatten(), lengths.flatten())
        return source[to_device(places, source.device)]

    # -- CTC ----------------------------------------------------------------------------------

    def token_logits(self, states: Tensor) -> Tensor:
        """Return the CTC head's scores (…, C) of encoder states (…, D), the blank's last.

        Raises ValueError without a head.
        """
        head = self.ctc_head
        if head is None:
            raise ValueError("the model has no CTC head; train phase 1 with ctc in model.losses")
        states = states.to(head.weight.dtype)
        return head(states)

    def speech_classes(self) -> SpeechClasses:
        """Return the CTC head for decoding."""
        losses = getattr(self.config, "losses", None)
        scoring = scoring_of(losses)
        return SpeechClasses(self.token_logits, self.blank, scoring.token_ids)

    def speech_tokens(self, frames: Tensor) -> Tensor:
        """Count the positions that speech takes in the decoder: none, it looks at the states."""
        return torch.zeros_like(frames)

    # -- what trains --------------------------------------------------------------------------

    def set_objective(self, objective: Objective) -> None:
        """Train to ``objective`` from now on; its losses are kept in config.json.

        The CTC head is there when a loss needs it, with new weights unless the model has one, and
        only then: a head without a loss would get no gradient. Raises ValueError for a head of
        other classes than the objective's.
        """
        classes_before = self.ctc_classes
        losses_before = getattr(self.config, "losses", None)
        self.config.losses = trained_with(losses_before, objective.entries)
        self.objective = objective
        if not objective.needs_logits:
            self.ctc_head = None
        elif self.ctc_head is None:
            self.add_ctc_head(self.blank)
        elif self.ctc_classes != classes_before:
            raise ValueError(
                "model.losses ctc: the model has a CTC head of other classes; "
                "give classes: FOLDER, that of the model, or begin with a Whisper without a head"
            )

    def add_ctc_head(self, classes: int) -> None:
        """Put a new CTC head on the encoder, for so many ``classes`` and the blank."""
        dtype = self.encoder.conv1.weight.dtype
        self.ctc_head = nn.Linear(self.config.d_model, classes + 1, dtype=dtype)

    def train(self, mode: bool = True) -> WhisperPhase:
        """Training mode for what trains; modules without a trainable parameter stay in eval
        mode."""
        self.training = mode
        trainable.set_mode(self, mode)
        return self

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Recompute activations of the layers in the backward pass."""
        whisper = self._whisper[0]
        enable = getattr(whisper, "activation_checkpointing_enable", None)
        if enable is None:
            enable = whisper.gradient_checkpointing_enable
        enable(activation_checkpointing_kwargs)

    # -- loaded, saved ------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike, dtype: torch.dtype | str = torch.float32
    ) -> WhisperPhase:
        """Load a Whisper folder or hub name, with its CTC head when the folder has one.

        ``dtype`` "auto": each part in the dtype it was saved in.
        """
        try:
            whisper = WhisperForConditionalGeneration.from_pretrained(str(name), dtype=dtype)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no Whisper model in {str(name)!r}: {error}; "
                "give a folder of transformers' Whisper, or a hub name"
            ) from None
        model = cls(whisper)
        head = cached_file(str(name), CTC_FILE, _raise_exceptions_for_missing_entries=False)
        if head is not None:
            model.add_ctc_head(model.blank)
            model.ctc_head.load_state_dict(load_file(head))
        if dtype == "auto":
            dtypes.apply(model, getattr(whisper.config, "part_dtypes", {}))
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        **kwargs: Any,
    ) -> None:
        """Write an ordinary Whisper folder of transformers with its preprocessor_config.json, and
        the CTC head beside it."""
        state = self.state_dict() if state_dict is None else state_dict
        whisper, head = {}, {}
        for name, tensor in state.items():
            if name.startswith(HEAD):
                head[name.removeprefix(HEAD)] = tensor
            else:
                whisper[_whisper_name(name)] = tensor
        self.config.part_dtypes = dtypes.of_parts(state)
        kwargs |= {"state_dict": whisper, "is_main_process": is_main_process}
        self._whisper[0].save_pretrained(save_directory, **kwargs)

        # transformers writes the dtype of its first parameter, to which readers without parts would
        # round the others.
        self.config.dtype = dtypes.widest(self.config.part_dtypes)
        if is_main_process:
            self.config.save_pretrained(save_directory)
            extractor = WhisperFeatureExtractor(feature_size=self.config.num_mel_bins)
            extractor.save_pretrained(save_directory)
            self._save_head(Path(save_directory) / CTC_FILE, head)

    def _save_head(self, path: Path, head: dict[str, Tensor]) -> None:
        """Write the CTC head, or see to it that there is none."""
        if self.ctc_head is None:
            # A head that another model left there would be taken for this one's.
            path.unlink(missing_ok=True)
            return
        tensors = {}
        for name, tensor in head.items():
            tensors[name] = tensor.detach().cpu().contiguous()
        save_file(tensors, path, metadata={"format": "pt"})


def _true_length(encoder: nn.Module) -> Encoder:
    """Make the same encoder, of the class that takes lengths."""
    with torch.device("meta"):
        ours = Encoder(encoder.config)
    ours.load_state_dict(encoder.state_dict(), assign=True)
    ours.embed_positions.requires_grad_(False)
    return ours.train(encoder.training)


def _whisper_name(name: str) -> str:
    """Return the name that a tensor has in transformers' Whisper."""
    if name.startswith("proj_out."):
        return name
    return f"model.{name}"


def run_decoder(
    decoder: nn.Module,
    ids: Tensor,
    states: Tensor,
    cross: Tensor | None,
    causal: Tensor | None = None,
    positions: Tensor | None = None,
    cache: EncoderDecoderCache | None = None,
) -> Tensor:
    """Run the decoder's own modules on ``ids`` (B, U): (B, U, D).

    transformers' forward has no way in for a cross-attention mask. Layer drop is not applied.

    ``causal`` (B, 1, U, L) says which of L positions, cached ones too, each of ``ids`` (B, U) may
    look at, ``positions`` (B, U) where they stand; without them each looks at those before it.
    ``cross`` (B, 1, 1, N) says which states exist, None: all.
    """
    weights = decoder.embed_positions.weight
    if positions is None:
        _, length = ids.shape
        places = weights[:length]
    else:
        places = weights[positions]
    hidden = decoder.embed_tokens(ids) + places
    hidden = functional.dropout(hidden, p=decoder.dropout, training=decoder.training)

    # A frozen encoder may be in half precision beside a decoder in float32.
    states = states.to(weights.dtype)
    options = {
        "encoder_attention_mask": cross,
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
    for layer in decoder.layers:
        hidden = layer(hidden, causal, states, **options)
    return decoder.layer_norm(hidden)

"""Phase 1: a whole Whisper, encoder and decoder, on the same targets as the speech LLM, with a CTC head on the encoder if wanted.

Letters: B utterances, T frames of the longest, N encoder states, U decoder tokens of the longest, A answer tokens of all utterances,
D width, V vocabulary.

The decoder reads: its start token, prompt, answer; the loss is on the answer tokens. Rows are padded on the right, where causal
attention cannot look; cross-attention sees an utterance's own states only.
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
from transformers import EncoderDecoderCache, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from wenet_osum.models import dtypes, split, trainable
from wenet_osum.models.ctc_scores import SpeechClasses
from wenet_osum.models.encoder.whisper import Encoder
from wenet_osum.models.lengths import spans, valid_mask
from wenet_osum.models.loss import LossOutput, token_losses
from wenet_osum.models.objective import Objective, Speech, trained_with

if TYPE_CHECKING:
    from wenet_osum.records import Batch

CTC_FILE = "ctc_head.safetensors"


class WhisperPhase(nn.Module):
    """A Whisper whose parts are named ``encoder``, ``decoder``, ``proj_out`` (tied to the decoder's embeddings) and ``ctc_head``."""

    def __init__(self, whisper: WhisperForConditionalGeneration) -> None:
        super().__init__()
        if not isinstance(whisper.model.encoder, Encoder):
            whisper.model.encoder = _true_length(whisper.model.encoder)
        self._whisper = (whisper,)  # in a tuple: its modules are registered below, under shorter names
        self.encoder, self.decoder, self.proj_out = whisper.model.encoder, whisper.model.decoder, whisper.proj_out
        self.ctc_head: nn.Linear | None = None  # there when the folder has one, or a loss needs it
        self.objective = Objective()  # what a training run trains to (set_objective)

    @property
    def config(self) -> WhisperConfig:
        """The Whisper's configuration."""
        return self._whisper[0].config

    @property
    def blank(self) -> int:
        """CTC's blank: the id after the vocabulary."""
        return self.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.encoder.conv1.weight.device

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike, dtype: torch.dtype | str = torch.float32
    ) -> WhisperPhase:
        """Load a Whisper folder or hub name, with its CTC head when the folder has one.

        ``dtype`` "auto": each part in the dtype it was saved in.
        """
        as_saved = dtype == "auto"
        try:
            whisper = WhisperForConditionalGeneration.from_pretrained(str(name), dtype=dtype)
        except (OSError, ValueError) as error:
            raise ValueError(f"no Whisper model in {str(name)!r}: {error}; give a folder of transformers' Whisper, or a hub name") from None
        model, head = cls(whisper), Path(name) / CTC_FILE
        if head.exists():
            model.add_ctc_head()
            model.ctc_head.load_state_dict(load_file(head))
        if as_saved:
            dtypes.apply(model, getattr(whisper.config, "part_dtypes", {}))
        return model.eval()

    def save_pretrained(
        self, save_directory: str | os.PathLike, state_dict: dict[str, Tensor] | None = None, is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Write an ordinary Whisper folder of transformers with its preprocessor_config.json, and
        the CTC head beside it.
        """
        state = self.state_dict() if state_dict is None else state_dict
        plain = {_whisper_name(name): tensor for name, tensor in state.items() if not name.startswith("ctc_head.")}
        self.config.part_dtypes = dtypes.of_parts(state)
        self._whisper[0].save_pretrained(save_directory, state_dict=plain, is_main_process=is_main_process, **kwargs)
        # transformers writes the dtype of its first parameter, to which readers without parts would
        # round the others
        self.config.dtype = dtypes.widest(self.config.part_dtypes)
        if is_main_process:
            self.config.save_pretrained(save_directory)
            extractor = WhisperFeatureExtractor(feature_size=self.config.num_mel_bins)
            extractor.save_pretrained(save_directory)
        if self.ctc_head is None and is_main_process:
            # A head that another model left there would be taken for this one's.
            (Path(save_directory) / CTC_FILE).unlink(missing_ok=True)
        if self.ctc_head is not None and is_main_process:
            head = {n.removeprefix("ctc_head."): t.detach().cpu().contiguous() for n, t in state.items() if n.startswith("ctc_head.")}
            save_file(head, Path(save_directory) / CTC_FILE, metadata={"format": "pt"})

    def speech_tokens(self, frames: Tensor) -> Tensor:
        """Count the positions that speech takes in the decoder: none, it looks at the states."""
        return torch.zeros_like(frames)

    def train(self, mode: bool = True) -> WhisperPhase:
        """Training mode for what trains; modules without a trainable parameter stay in eval mode."""
        self.training = mode
        trainable.set_mode(self, mode)
        return self

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute activations of the layers in the backward pass."""
        enable = getattr(self._whisper[0], "activation_checkpointing_enable", None) or self._whisper[0].gradient_checkpointing_enable
        enable(activation_checkpointing_kwargs)

    def set_objective(self, objective: Objective) -> None:
        """Train to ``objective`` from now on; its losses are kept in config.json.

        The CTC head is there when a loss needs it, with new weights unless the model has one, and only then: a head
        without a loss would get no gradient.
        """
        if not objective.needs_logits:
            self.ctc_head = None
        elif self.ctc_head is None:
            self.add_ctc_head()
        self.objective = objective
        self.config.losses = trained_with(getattr(self.config, "losses", None), objective.entries)

    def add_ctc_head(self) -> None:
        """Put a new CTC head on the encoder."""
        self.ctc_head = nn.Linear(self.config.d_model, self.blank + 1, dtype=self.encoder.conv1.weight.dtype)

    def token_logits(self, states: Tensor) -> Tensor:
        """Return the CTC head's scores (…, V + 1) of encoder states (…, D). Raises ValueError without a head."""
        if self.ctc_head is None:
            raise ValueError("the model has no CTC head; train phase 1 with ctc in model.losses")
        return self.ctc_head(states.to(self.ctc_head.weight.dtype))

    def ctc_states(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder states (B, N, D) that CTC reads, and their lengths (B,), on the CPU."""
        return self.encoder(features, feature_lengths)

    def speech_classes(self) -> SpeechClasses:
        """Return the CTC head for decoding."""
        return SpeechClasses(self.token_logits, self.blank, list)

    def forward(self, batch: Batch) -> LossOutput:
        """Compute the loss of a batch as the model's objective says. Raises ValueError for texts beyond the decoder's positions."""
        states, lengths = split.encode(self.encoder, batch)
        speech = Speech(states, lengths, self.encoder.state_s, partial(self.token_logits, states), self.blank)
        return self.objective(batch, speech, partial(self._answers, batch, states, lengths), {"decoder": self.decoder, "proj_out": self.proj_out})

    def _answers(self, batch: Batch, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder: losses and correctness of the answer tokens (A,)."""
        prompts, answers = batch.prompt_lengths.cpu(), batch.answer_lengths.cpu()
        return self._decode(states, lengths, batch.prompt_ids, prompts, batch.answer_ids, answers)

    def _decode(
        self, states: Tensor, lengths: Tensor, prompt_ids: Tensor, prompts: Tensor, answer_ids: Tensor, answers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses and correctness of the answer tokens (A,), by teacher forcing."""
        ids, rows = self._decoder_input(prompt_ids, prompts, answer_ids, answers)
        mask = valid_mask(lengths, states.shape[1], states.device)
        hidden = run_decoder(self.decoder, ids, states, mask if mask is None else mask[:, None, None, :])
        before = spans(torch.arange(len(rows)) * ids.shape[1] + prompts, answers)
        return token_losses(self.proj_out, hidden.flatten(0, 1)[before.to(hidden.device)], answer_ids)

    def _decoder_input(self, prompt_ids: Tensor, prompts: Tensor, answer_ids: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Start token, prompt, answer without its last token: (B, U) padded on the right with the start token, and lengths (B,)."""
        rows = prompts + answers.clamp(min=1)
        longest, limit = int(rows.max()), self.config.max_target_positions
        if longest > limit:
            raise ValueError(f"prompt and answer have {longest} tokens, the Whisper decoder reaches {limit}; lower filter.max_target_tokens")
        start = torch.full((1,), self.config.decoder_start_token_id, device=prompt_ids.device)
        source = torch.cat([prompt_ids, answer_ids, start])
        first = torch.full_like(prompts, len(source) - 1)
        used = (answers - 1).clamp(min=0)
        starts = torch.stack([first, prompts.cumsum(0) - prompts, len(prompt_ids) + answers.cumsum(0) - answers], dim=1)
        index = spans(starts.flatten(), torch.stack([torch.ones_like(prompts), prompts, used], dim=1).flatten())
        padded = torch.full((len(rows), longest), len(source) - 1)
        padded[torch.arange(longest) < rows[:, None]] = index
        return source[padded.to(source.device)], rows


def _true_length(encoder: nn.Module) -> Encoder:
    """The same encoder, as the class that takes lengths."""
    with torch.device("meta"):
        ours = Encoder(encoder.config)
    ours.load_state_dict(encoder.state_dict(), assign=True)
    ours.embed_positions.requires_grad_(False)
    return ours.train(encoder.training)


def _whisper_name(name: str) -> str:
    return name if name.startswith("proj_out.") else f"model.{name}"


def run_decoder(
    decoder: nn.Module,
    ids: Tensor,
    states: Tensor,
    cross: Tensor | None,
    causal: Tensor | None = None,
    positions: Tensor | None = None,
    cache: EncoderDecoderCache | None = None,
) -> Tensor:
    """The decoder's own modules, for transformers' forward has no way in for a cross-attention mask. Layer drop is not applied.

    ``causal`` (B, 1, U, L) says which of L positions, cached ones too, each of ``ids`` (B, U) may
    look at, ``positions`` (B, U) where they stand; without them each looks at those before it.
    """
    weights = decoder.embed_positions.weight
    places = weights[: ids.shape[1]] if positions is None else weights[positions]
    hidden = decoder.embed_tokens(ids) + places
    hidden = functional.dropout(hidden, p=decoder.dropout, training=decoder.training)
    # a frozen encoder may be in half precision beside a decoder in float32
    states = states.to(weights.dtype)
    kept = {"past_key_values": cache, "use_cache": cache is not None}
    for layer in decoder.layers:
        hidden = layer(hidden, causal, states, encoder_attention_mask=cross, **kept)
    return decoder.layer_norm(hidden)

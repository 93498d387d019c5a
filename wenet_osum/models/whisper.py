"""Phase 1: a whole Whisper, encoder and decoder, on the same targets as the speech LLM, with a CTC head on the encoder if wanted.

Letters: B utterances, T frames of the longest, N encoder states, U decoder tokens of the longest, A answer tokens of all utterances,
D width, V vocabulary.

The decoder reads: its start token, prompt, answer; the loss is on the answer tokens. Rows are padded on the right, where causal
attention cannot look; cross-attention sees an utterance's own states only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from wenet_osum.models import dtypes, parts
from wenet_osum.models.encoder.whisper import Encoder
from wenet_osum.models.lengths import spans, valid_mask
from wenet_osum.models.loss import LossOutput, any_weight, ctc_losses, token_losses, weighted, with_ctc

CTC_FILE = "ctc_head.safetensors"
STATE_S = 0.02  # of an encoder state


class WhisperPhase(nn.Module):
    """A Whisper whose parts are named ``encoder``, ``decoder``, ``proj_out`` (tied to the decoder's embeddings) and ``ctc_head``.

    ``ctc_weight`` w, 0 to 1: loss = (1 - w) · Σ weight · NLL of the answer tokens + w · Σ CTC loss of the transcripts, a sum over
    utterances, so that dividing by Σ weight scales both alike. An utterance whose answer weights are all zero has no CTC loss.
    At w = 1 the decoder does not run: the CTC loss of an utterance is spread over its answer tokens in ``nll``, none is ``correct``.
    """

    def __init__(self, whisper: WhisperForConditionalGeneration, ctc_weight: float = 0.0) -> None:
        super().__init__()
        if not 0 <= ctc_weight <= 1:
            raise ValueError(f"ctc_weight {ctc_weight} must lie between 0 and 1")
        if not isinstance(whisper.model.encoder, Encoder):
            whisper.model.encoder = _true_length(whisper.model.encoder)
        self._whisper = (whisper,)  # in a tuple: its modules are registered below, under shorter names
        self.encoder, self.decoder, self.proj_out = whisper.model.encoder, whisper.model.decoder, whisper.proj_out
        self.ctc_weight = ctc_weight
        self.ctc_head = nn.Linear(self.config.d_model, self.blank + 1, dtype=whisper.dtype) if ctc_weight else None

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
        cls,
        name: str | os.PathLike,
        ctc_weight: float | None = None,
        dtype: torch.dtype | str = torch.float32,
    ) -> WhisperPhase:
        """Load a Whisper folder or hub name, with its CTC head when the folder has one.
        ``ctc_weight`` None: as saved.

        ``dtype`` "auto": each part in the dtype it was saved in.
        """
        as_saved = dtype == "auto"
        try:
            whisper = WhisperForConditionalGeneration.from_pretrained(str(name), dtype=dtype)
        except (OSError, ValueError) as error:
            raise ValueError(f"no Whisper model in {str(name)!r}: {error}; give a folder of transformers' Whisper, or a hub name") from None
        saved = getattr(whisper.config, "ctc_weight", 0.0)
        model = cls(whisper, saved if ctc_weight is None else ctc_weight)
        head = Path(name) / CTC_FILE
        if model.ctc_head is not None and head.exists():
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
        self.config.ctc_weight = self.ctc_weight
        self.config.part_dtypes = dtypes.of_parts(state)
        self._whisper[0].save_pretrained(save_directory, state_dict=plain, is_main_process=is_main_process, **kwargs)
        # transformers writes the dtype of its first parameter, to which readers without parts would
        # round the others
        self.config.dtype = dtypes.widest(self.config.part_dtypes)
        if is_main_process:
            self.config.save_pretrained(save_directory)
            extractor = WhisperFeatureExtractor(feature_size=self.config.num_mel_bins)
            extractor.save_pretrained(save_directory)
        if self.ctc_head is not None and is_main_process:
            head = {n.removeprefix("ctc_head."): t.detach().cpu().contiguous() for n, t in state.items() if n.startswith("ctc_head.")}
            save_file(head, Path(save_directory) / CTC_FILE, metadata={"format": "pt"})

    def train(self, mode: bool = True) -> WhisperPhase:
        """Training mode for what trains; modules without a trainable parameter stay in eval mode."""
        self.training = mode
        parts.set_mode(self, mode)
        return self

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute activations of the layers in the backward pass."""
        enable = getattr(self._whisper[0], "activation_checkpointing_enable", None) or self._whisper[0].gradient_checkpointing_enable
        enable(activation_checkpointing_kwargs)

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        prompt_ids: Tensor,
        prompt_lengths: Tensor,
        answer_ids: Tensor,
        answer_lengths: Tensor,
        answer_weights: Tensor | None = None,
        transcript_ids: Tensor | None = None,
        transcript_lengths: Tensor | None = None,
        transcript_times: Tensor | None = None,
        **unused: Any,
    ) -> LossOutput:
        """Loss of a ``records.Batch``. Raises ValueError for texts beyond the decoder's positions, or CTC without transcripts."""
        states, lengths = self.encoder(features, feature_lengths)
        answers = answer_lengths.cpu()
        ctc = impossible = None
        if self.ctc_weight:
            ctc, impossible = self._ctc(states, lengths, transcript_ids, transcript_lengths, transcript_times)
            heard = any_weight(answer_weights, answers, ctc.device)
        if self.ctc_weight == 1:
            return self._ctc_only(ctc, impossible, heard, answers, answer_weights)
        nll, correct = self._decode(states, lengths, prompt_ids, prompt_lengths.cpu(), answer_ids, answers)
        output = weighted(nll, correct, answer_weights)
        return output if ctc is None else with_ctc(output, self.ctc_weight, ctc, impossible, heard)

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

    def _ctc(
        self, states: Tensor, lengths: Tensor, ids: Tensor | None, id_lengths: Tensor | None, times: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """CTC loss of each utterance (B,) on the encoder's states, and how many are impossible."""
        with torch.autocast(states.device.type, enabled=False):
            logits = self.ctc_head(states.to(self.ctc_head.weight.dtype))
            return ctc_losses(logits, lengths, ids, id_lengths, self.blank, times, STATE_S, held=True)

    def _ctc_only(self, ctc: Tensor, impossible: Tensor, heard: Tensor, answers: Tensor, weights: Tensor | None) -> LossOutput:
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.decoder.parameters()):
            raise ValueError("ctc_weight 1 does not run the decoder, yet train_parts names it; leave decoder.* and proj_out.* out")
        nll = torch.repeat_interleave(ctc.detach() / answers.clamp(min=1).to(ctc), answers.to(ctc.device))
        output = weighted(nll, torch.zeros_like(nll, dtype=torch.bool), weights)
        output.loss, output.impossible = (ctc * heard).sum(), impossible
        return output

    @torch.no_grad()
    def ctc_greedy(self, features: Tensor, feature_lengths: Tensor) -> list[list[int]]:
        """The CTC head's best path of each utterance, repeats and blanks taken out: token ids. For a quick look at error rates."""
        if self.ctc_head is None:
            raise ValueError("the model has no CTC head; set model.ctc_weight above 0")
        states, lengths = self.encoder(features, feature_lengths)
        best = self.ctc_head(states).argmax(-1).cpu()
        paths = (row[:length].unique_consecutive().tolist() for row, length in zip(best, lengths.tolist(), strict=True))
        return [[i for i in path if i != self.blank] for path in paths]


def _true_length(encoder: nn.Module) -> Encoder:
    """The same encoder, as the class that takes lengths."""
    with torch.device("meta"):
        ours = Encoder(encoder.config)
    ours.load_state_dict(encoder.state_dict(), assign=True)
    ours.embed_positions.requires_grad_(False)
    return ours.train(encoder.training)


def _whisper_name(name: str) -> str:
    return name if name.startswith("proj_out.") else f"model.{name}"


def run_decoder(decoder: nn.Module, ids: Tensor, states: Tensor, cross: Tensor | None) -> Tensor:
    """The decoder's own modules, for transformers' forward has no way in for a cross-attention mask. Layer drop is not applied."""
    hidden = decoder.embed_tokens(ids) + decoder.embed_positions.weight[: ids.shape[1]]
    hidden = functional.dropout(hidden, p=decoder.dropout, training=decoder.training)
    # a frozen encoder may be in half precision beside a decoder in float32
    states = states.to(decoder.embed_positions.weight.dtype)
    for layer in decoder.layers:
        hidden = layer(hidden, None, states, encoder_attention_mask=cross, use_cache=False)
    return decoder.layer_norm(hidden)

"""The speech LLM: encoder → adapter → LLM.

Letters: B utterances, T frames of the longest, M mel bins, P prompt and A answer tokens of all
utterances, S speech embeddings of the longest, U suffix tokens, L tokens of all utterances laid end
to end, H width of the LLM, V its vocabulary.

Each utterance is laid out as: prompt, speech start, speech, speech end, suffix, answer (layout.py);
a conversation as several of them in one row. Tensors of speech then have a row per recording.
Training runs all of them as one packed sequence whose positions restart; decoding runs them padded
on the left. Both give the same numbers.

What a model is made of stands in osum_config.py, how a new one is made in assemble.py, the losses
in objective.py.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    GenerationMixin,
    PreTrainedModel,
)

from wenet_osum import lookup
from wenet_osum.models import dtypes, lora, shrink, split, time_marks, trainable, unread
from wenet_osum.models.answers import LLMAnswers
from wenet_osum.models.assemble import assemble, make_adapter
from wenet_osum.models.ctc_scores import CTCScores, Scoring, scoring_of
from wenet_osum.models.label_queries import front_names, split_front
from wenet_osum.models.layout import Pieces, Question, lay_out, pad_left
from wenet_osum.models.llm import causal
from wenet_osum.models.llm_speech import speech_for_llm
from wenet_osum.models.loss import LossOutput
from wenet_osum.models.objective import Objective, Speech, trained_with
from wenet_osum.models.osum_config import ENCODERS, OsumConfig
from wenet_osum.models.processor import HUB, OsumFeatureExtractor, OsumProcessor

if TYPE_CHECKING:
    from wenet_osum.records import Batch


class OsumModel(PreTrainedModel, GenerationMixin):
    """Encoder, adapter, LLM and the two embeddings that enclose the speech.

    Phase 1's decoder is not part of it.
    """

    config_class = OsumConfig
    base_model_prefix = ""
    main_input_name = "features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # Each stays on one device under device_map.
    _no_split_modules = ["Encoder", "Adapter"]
    training: bool

    def __init__(self, config: OsumConfig) -> None:
        super().__init__(config)
        encoder = lookup.load(ENCODERS, config.encoder.model_type)
        self.encoder = encoder.Encoder(config.encoder)
        self.llm = causal.create(config.llm)
        self.adapter = make_adapter(config, self.encoder.width)
        self.speech_boundary = nn.Embedding(2, config.llm.hidden_size)
        # peft's LoraConfig once adapters are in.
        self.lora = None
        # Weights that are to be read yet, by name (models/unread.py).
        self.unread: unread.Places = {}
        # What a training run trains to (set_objective).
        self.objective = Objective()
        self.post_init()
        dtypes.apply(self, config.part_dtypes)

    # -- training: the loss of a batch --------------------------------------------------------

    def forward(self, batch: Batch) -> LossOutput:
        """Compute the loss of a batch as the model's objective says.

        The logits for an answer token are those of the position before it.
        """
        # Features to encoder states, those to speech in the LLM's space: (B, S, H).
        encoded, lengths = split.encode(self.encoder, batch)
        states, lengths = self._adapted(encoded, lengths)

        # Further losses read what the adapter gives, not shrunk, apart from its label queries.
        front, frames, frame_lengths = split_front(self.adapter, states, lengths)
        table = self.get_input_embeddings().weight
        all_tokens = Scoring().over(table, self.blank)
        speech = Speech(
            frames,
            frame_lengths,
            state_s=self.embedding_s if self.adapter.stride else None,
            logits=partial(all_tokens.logits, frames),
            blank=self.blank,
            table=table,
            labels=dict(zip(front_names(self.adapter), front.unbind(1), strict=True)),
        )

        # The LLM runs for cross-entropy only; it reads fewer embeddings where the adapter shrinks.
        llm_speech, llm_lengths = states, None
        if self.objective.ce_weight:
            llm_speech, llm_lengths = speech_for_llm(
                self, states, lengths, batch.recording_tasks()
            )
        answers = LLMAnswers(self.llm, self.speech_boundary, batch, llm_speech, llm_lengths)
        output = self.objective(batch, speech, answers, shrink.answering(self))
        output.speech_lengths = llm_lengths
        return output

    # -- decoding: what stands before the answers ---------------------------------------------

    @torch.no_grad()
    def generate(self, *inputs: Tensor, **keywords: Any) -> Any:
        """Answer by transformers' ``generate``: token ids (B, new tokens), padded after their end.

        Takes what the processor gives, the fields of ``Question``, and the keywords of that
        ``generate``.
        """
        question, settings = Question.split(inputs, keywords)
        embeddings, mask = self._inputs_embeds(question)
        settings.setdefault("logits_to_keep", causal.last_position(embeddings.device))
        return self.llm.generate(inputs_embeds=embeddings, attention_mask=mask, **settings)

    def prompt_embeddings(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, Tensor]:
        """Return what stands before the answers, padded on the left with zeros: (B, L, H), with its
        mask (B, L) int64.

        Takes what the processor gives, the fields of ``Question``. Positions are to count the
        mask's ones (``mask.cumsum(1) - 1``), as ``generate`` of transformers does: so they equal
        training's.
        """
        return self._inputs_embeds(Question(*inputs, **named))

    def _inputs_embeds(self, question: Question) -> tuple[Tensor, Tensor]:
        """Return what stands before the answers to a question, (B, L, H), and its mask (B, L)."""
        tasks = question.tasks
        speech = self.padded_speech(question.features, question.feature_lengths, tasks)
        return self.prompts_with(*speech, question)

    def prompts_with(
        self, speech: Tensor, speech_lengths: Tensor, question: Question
    ) -> tuple[Tensor, Tensor]:
        """Return the same from padded speech embeddings (B, S, H) and their lengths (B,), on the
        CPU, in the place of the question's features."""
        answers = question.answer_lengths
        pieces = Pieces(
            question.prompt_ids,
            question.prompt_lengths.cpu(),
            speech,
            speech_lengths,
            question.suffix_ids,
            question.answer_ids,
            None if answers is None else answers.cpu(),
            question.turns,
        )
        embed = self.get_input_embeddings()
        embeddings, lengths = lay_out(embed, self.speech_boundary, pieces)
        return pad_left(embeddings, pieces.of_utterances(lengths))

    # -- speech in the LLM's space ------------------------------------------------------------

    def padded_speech(
        self, features: Tensor, feature_lengths: Tensor, tasks: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what the LLM hears of features (B, T, M): padded embeddings (B, S, H), and their
        lengths (B,), on the CPU. ``tasks`` as in ``speech_for_llm``."""
        states, lengths = self.adapted(features, feature_lengths)
        return speech_for_llm(self, states, lengths, tasks)

    def adapted(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return all that the adapter makes of features (B, T, M), not shrunk: embeddings (B, S, H)
        and their lengths (B,), on the CPU."""
        states, lengths = self.encoder(features, feature_lengths)
        return self._adapted(states, lengths)

    def _adapted(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the adapter's embeddings of the encoder's states."""
        speech, lengths = self.adapter(states, lengths)
        # Under a device_map of several devices they come along with the states.
        return speech, lengths.cpu()

    def speech_tokens(self, frames: Tensor) -> Tensor:
        """Count the LLM positions that speech takes, or takes at most: frames (n,) to tokens
        (n,)."""
        states = self.encoder.output_lengths(frames)
        embeddings = self.adapter.output_lengths(states)
        return embeddings + time_marks.added(self, embeddings)

    @property
    def embedding_s(self) -> float:
        """Seconds of speech in one embedding.

        Raises ValueError where the adapter has no fixed rate.
        """
        if self.adapter.stride is None:
            raise ValueError(
                f"adapter {self.config.adapter} has no fixed rate, so its embeddings have no "
                "times; use another adapter where word times are learned or told"
            )
        return self.adapter.stride * self.encoder.state_s

    # -- CTC: speech among the LLM's tokens ---------------------------------------------------

    @property
    def blank(self) -> int | None:
        """CTC's blank: the end of text as the LLM's configuration names it, whatever ends an
        answer. No transcript holds it."""
        return self.config.end_of_text

    def speech_classes(self) -> CTCScores:
        """Return how CTC compares speech with the LLM's tokens, as the model was trained."""
        scoring = scoring_of(self.config.losses)
        table = self.get_input_embeddings().weight
        return scoring.over(table, self.blank)

    # -- what trains --------------------------------------------------------------------------

    def set_objective(self, objective: Objective) -> None:
        """Train to ``objective`` from now on; its losses are kept in config.json.

        Raises ValueError when a loss needs a blank and the LLM names no end of text.
        """
        if objective.needs_logits and self.blank is None:
            raise ValueError(
                "model.losses: the LLM names no eos_token_id, which is the blank of CTC; "
                "set it in its config.json"
            )
        config = self.config
        losses = trained_with(config.losses, objective.entries)
        shrink.check_trained(config.adapter, self.adapter, losses)
        self.objective = objective
        config.losses = losses
        config.answers_trained = bool(config.answers_trained or objective.ce_weight)

    def train(self, mode: bool = True) -> OsumModel:
        """Training mode for what trains; modules without a trainable parameter stay in eval
        mode."""
        self.training = mode
        trainable.set_mode(self, mode)
        if mode:
            causal.keep_checkpointing(self.llm, mode)
        return self

    def add_lora(self, conf: Any) -> None:
        """Put LoRA adapters into the LLM; ``conf`` is peft's LoraConfig or the one of
        ``config``."""
        if self.lora is not None:
            raise ValueError("the model has LoRA adapters already; merge them first (merge_lora)")
        self.lora = lora.add(self.llm, conf)

    def merge_lora(self) -> None:
        """Add the adapters' products to the weights they adapt and take them out."""
        lora.merge(self.llm)
        self.lora = None

    @torch.no_grad()
    def set_speech_boundary(self, token: int) -> None:
        """Let both vectors around the speech be the embedding of ``token``."""
        vector = unread.token_embeddings(self, token, token + 1)
        self.speech_boundary.weight.data[:] = vector

    def get_input_embeddings(self) -> nn.Module:
        """Return the LLM's token embeddings."""
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the LLM's head."""
        return self.llm.get_output_embeddings()

    # -- made, loaded, saved ------------------------------------------------------------------

    @classmethod
    def from_parts(
        cls,
        encoder_source: str | Path,
        llm: str | Path,
        adapter: str = "conv_transformer",
        adapter_conf: dict[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        encoder: str = "whisper",
        adapter_init: str | None = None,
        weights_later: bool = False,
    ) -> OsumModel:
        """Assemble from a speech encoder and a causal LM, folders or hub names, in eval mode.

        ``encoder`` is the file in models/encoder that reads ``encoder_source``, ``adapter_init`` a
        file in models/adapter_init; None: the adapter's own initial weights. Adapter and speech
        boundary get new weights. ``weights_later``: see models/unread.py. Raises ValueError for an
        LLM that does not give the same packed as alone (``llm/supported.py``, ``llm/proof.py``).
        """
        model = assemble(
            cls,
            str(encoder_source),
            str(llm),
            encoder=encoder,
            adapter=adapter,
            adapter_conf=adapter_conf or {},
            adapter_init=adapter_init,
            dtype=dtype,
            weights_later=weights_later,
        )
        return model.eval()

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Load a complete folder or hub name, with the LoRA adapters in its ``lora`` subfolder if
        there are any.

        ``dtype`` "auto", also when none is given: each part in the dtype it was saved in; another:
        all parts in that one.
        """
        where = {key: kwargs[key] for key in HUB if key in kwargs}
        config = kwargs.pop("config", None)
        if not isinstance(config, OsumConfig):
            config = OsumConfig.from_pretrained(config or name, **where)
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        as_saved = dtype in (None, "auto")
        if not as_saved:
            config = copy.deepcopy(config)
            config.part_dtypes = {}

        loaded = super().from_pretrained(name, *args, config=config, **kwargs)
        # With output_loading_info it comes in a tuple.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.llm.generation_config = model.generation_config
        model.lora = lora.load(model.llm, str(name), as_saved, **where)
        return loaded

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a complete folder: the base weights under their plain names, LoRA adapters in
        ``lora`` as peft writes them. What lay there of a model that had some goes away.

        Raises ValueError for ``push_to_hub`` where there are adapters.
        """
        if self.lora is not None and kwargs.get("push_to_hub"):
            raise ValueError("the upload would lack LoRA: call push_to_hub of the model instead")
        state = self.state_dict() if state_dict is None else state_dict
        base = lora.base_state(state)
        saved_as = dtypes.of_parts(base)
        self.config.part_dtypes = saved_as
        self.config.encoder.dtype = getattr(torch, saved_as["encoder"])
        self.config.llm.dtype = getattr(torch, saved_as["llm"])
        super().save_pretrained(save_directory, state_dict=base, **kwargs)

        if not kwargs.get("is_main_process", True):
            return
        if self.lora is None:
            lora.remove(Path(save_directory))
        else:
            language = {}
            for name, tensor in state.items():
                if name.startswith("llm."):
                    language[name.removeprefix("llm.")] = tensor
            lora.save(self.llm, self.lora, language, Path(save_directory))


AutoConfig.register("wenet_osum", OsumConfig)
AutoModel.register(OsumConfig, OsumModel)
AutoModelForMultimodalLM.register(OsumConfig, OsumModel)
AutoFeatureExtractor.register(OsumConfig, OsumFeatureExtractor)
AutoProcessor.register(OsumConfig, OsumProcessor)

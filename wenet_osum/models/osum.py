"""The speech LLM: encoder → adapter → LLM.

Letters: B utterances, T frames of the longest, M mel bins, P prompt and A answer tokens of all utterances, S speech embeddings of the
longest, U suffix tokens, L tokens of all utterances laid end to end, H width of the LLM.

Each utterance is laid out as: prompt, speech start, speech, speech end, suffix, answer (layout.py). Training runs all of them as one
packed sequence whose positions restart; decoding runs them padded on the left. Both give the same numbers.
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
    PreTrainedConfig,
    PreTrainedModel,
)

from wenet_osum import lookup, migrate
from wenet_osum.models import dtypes, lora, shrink, split, trainable
from wenet_osum.models.assemble import greedy, init_adapter, make_adapter
from wenet_osum.models.ctc_scores import CTCScores, normed, scoring_of
from wenet_osum.models.layout import Pieces, lay_out, pad_left
from wenet_osum.models.lengths import spans
from wenet_osum.models.llm import causal, proof
from wenet_osum.models.loss import LossOutput, token_losses
from wenet_osum.models.objective import Objective, Speech, trained_with
from wenet_osum.models.processor import HUB, OsumFeatureExtractor, OsumProcessor

if TYPE_CHECKING:
    from wenet_osum.records import Batch

ENCODERS = "wenet_osum.models.encoder"
SCALE_ROWS = 20_000  # token embeddings that tell how large those of the LLM are


class OsumConfig(PreTrainedConfig):
    """The parts a model is made of; ``from_pretrained`` needs nothing else."""

    model_type = "wenet_osum"

    encoder: Any = None  # config of the speech encoder
    llm: Any = None  # config of the LLM
    adapter: str = "conv_transformer"  # file name in models/adapter
    adapter_conf: Any = None  # arguments of the adapter
    part_dtypes: Any = None  # part → dtype it was saved in, that of loading with dtype "auto"
    # What it was trained with beside cross-entropy, entries of model.losses; None: nobody knows.
    losses: Any = None
    # Whether cross-entropy of answers was ever among what it was trained with; None: nobody knows.
    answers_trained: Any = None
    format_version: int | None = None  # of the folder (migrate.py); None: it was written before there were numbers

    def __post_init__(self, **kwargs: Any) -> None:
        migrate.check_version(self.format_version, "config.json")
        self.format_version = migrate.FORMAT_VERSION
        self.encoder = _config(self.encoder, "whisper")
        self.llm = _config(self.llm, "qwen2")
        self.adapter_conf = dict(self.adapter_conf or {})
        self.part_dtypes = dict(self.part_dtypes or {})
        self.tie_word_embeddings = self.llm.tie_word_embeddings
        super().__post_init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The LLM's, which is what generation asks for."""
        return self.llm


def _config(value: dict[str, Any] | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    value = {k: v for k, v in dict(value or {}).items() if k != "_name_or_path"}  # where it came from on some machine
    model_type = value.pop("model_type", default)
    if model_type in lookup.names(ENCODERS):
        lookup.load(ENCODERS, model_type)  # a file of ours may bring its own configuration class
    return AutoConfig.for_model(model_type, **value)


def _end_of_text(llm: PreTrainedConfig) -> int | None:
    ends = llm.eos_token_id
    return ends[0] if isinstance(ends, list) else ends


class OsumModel(PreTrainedModel, GenerationMixin):
    """Encoder, adapter, LLM and the two embeddings that enclose the speech. Phase 1's decoder is not part of it."""

    config_class = OsumConfig
    base_model_prefix = ""
    main_input_name = "features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Encoder", "Adapter"]  # each stays on one device under device_map

    def __init__(self, config: OsumConfig) -> None:
        super().__init__(config)
        self.encoder = lookup.load(ENCODERS, config.encoder.model_type).Encoder(config.encoder)
        self.llm = causal.create(config.llm)
        self.adapter = make_adapter(config, self.encoder.width)
        self.speech_boundary = nn.Embedding(2, config.llm.hidden_size)
        self.lora = None  # peft's LoraConfig once adapters are in
        self.objective = Objective()  # what a training run trains to (set_objective)
        self.post_init()
        dtypes.apply(self, config.part_dtypes)

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
    ) -> OsumModel:
        """Assemble from a speech encoder and a causal LM, folders or hub names, in eval mode.

        ``encoder`` is the file in models/encoder that reads ``encoder_source``, ``adapter_init`` a
        file in models/adapter_init; None: the adapter's own initial weights. Adapter and speech
        boundary get new weights. Raises ValueError for an LLM that does not give the same packed as
        alone (``llm/supported.py``, ``llm/proof.py``).
        """
        encoder = lookup.load(ENCODERS, encoder).read(str(encoder_source), dtype)
        language = causal.read(str(llm), dtype)
        proof.check_packed(language)
        made = lookup.load("wenet_osum.models.adapter", adapter).Adapter
        if hasattr(made, "complete_conf"):
            adapter_conf = made.complete_conf(encoder.width, adapter_conf or {})
        config = OsumConfig(
            encoder=encoder.config,
            llm=language.config.to_dict(),
            adapter=adapter,
            adapter_conf=adapter_conf,
            losses=[],
            dtype=dtype,
        )
        with torch.device("meta"):  # the parts are at hand: do not draw their weights first
            model = cls(config)
        model.encoder, model.llm = encoder, language
        model.adapter = make_adapter(config, encoder.width)
        # The embeddings are called: those of Gemma are larger than the numbers of their table.
        rows = torch.arange(config.llm.vocab_size)[:SCALE_ROWS]
        scale = float(language.get_input_embeddings()(rows).detach().float().std())
        init_adapter(model.adapter, scale, adapter_init)
        model.adapter.to(dtype)
        model.speech_boundary = nn.Embedding(2, config.llm.hidden_size, dtype=dtype)
        nn.init.normal_(model.speech_boundary.weight, std=scale)
        if (end := _end_of_text(config.llm)) is not None:  # a border the LLM knows
            model.set_speech_boundary(end)
        model.generation_config = language.generation_config = greedy(language.generation_config)
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
        as_saved = kwargs.get("dtype", kwargs.get("torch_dtype")) in (None, "auto")
        if not as_saved:
            config = copy.deepcopy(config)
            config.part_dtypes = {}
        loaded = super().from_pretrained(name, *args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.llm.generation_config = model.generation_config
        model.lora = lora.load(model.llm, str(name), as_saved, **where)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike, state_dict: dict[str, Tensor] | None = None, **kwargs: Any) -> None:
        """Write a complete folder: the base weights under their plain names, LoRA adapters in ``lora`` as peft writes them."""
        state = self.state_dict() if state_dict is None else state_dict
        base = lora.base_state(state)
        self.config.part_dtypes = dtypes.of_parts(base)
        for part in ("encoder", "llm"):
            getattr(self.config, part).dtype = getattr(torch, self.config.part_dtypes[part])
        super().save_pretrained(save_directory, state_dict=base, **kwargs)
        if self.lora is not None and kwargs.get("is_main_process", True):
            language = {name.removeprefix("llm."): tensor for name, tensor in state.items() if name.startswith("llm.")}
            lora.save(self.llm, self.lora, language, Path(save_directory))

    @torch.no_grad()
    def set_speech_boundary(self, token: int) -> None:
        """Let both vectors around the speech be the embedding of ``token``."""
        # Called: the embeddings of Gemma are larger than the numbers of their table.
        vector = self.get_input_embeddings()(torch.tensor(token))
        self.speech_boundary.weight.data[:] = vector

    def add_lora(self, conf: Any) -> None:
        """Put LoRA adapters into the LLM; ``conf`` is peft's LoraConfig or the one of ``config.py``."""
        if self.lora is not None:
            raise ValueError("the model has LoRA adapters already; merge them first (merge_lora)")
        self.lora = lora.add(self.llm, conf)

    def merge_lora(self) -> None:
        """Add the adapters' products to the weights they adapt and take them out."""
        lora.merge(self.llm)
        self.lora = None

    def train(self, mode: bool = True) -> OsumModel:
        """Training mode for what trains; modules without a trainable parameter stay in eval mode."""
        self.training = mode
        trainable.set_mode(self, mode)
        if mode:
            causal.keep_checkpointing(self.llm, mode)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The LLM's token embeddings."""
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The LLM's head."""
        return self.llm.get_output_embeddings()

    def set_objective(self, objective: Objective) -> None:
        """Train to ``objective`` from now on; its losses are kept in config.json.

        Raises ValueError when a loss needs a blank and the LLM names no end of text.
        """
        if objective.needs_logits and self.blank is None:
            raise ValueError("model.losses: the LLM names no eos_token_id, which is the blank of CTC; set it in its config.json")
        losses = trained_with(self.config.losses, objective.entries)
        shrink.check_trained(self.config.adapter, self.adapter, losses)
        self.objective = objective
        self.config.losses = losses
        self.config.answers_trained = bool(self.config.answers_trained or objective.ce_weight)

    def forward(self, batch: Batch) -> LossOutput:
        """Compute the loss of a batch as the model's objective says.

        The logits for an answer token are those of the position before it.
        """
        states, lengths = self._adapted(*split.encode(self.encoder, batch))
        speech = Speech(
            states,
            lengths,
            self.embedding_s if self.adapter.stride else None,
            partial(self.token_logits, states),
            self.blank,
            self.get_input_embeddings().weight,
        )
        heard = shrink.heard(self, states, lengths, batch.tasks) if self.objective.ce_weight else (states, lengths)
        output = self.objective(batch, speech, partial(self._answers, batch, *heard), shrink.answering(self))
        output.speech_lengths = heard[1] if self.objective.ce_weight else None
        return output

    def _answers(self, batch: Batch, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the LLM over all utterances as one packed sequence: losses and correctness of the answer tokens (A,)."""
        answers = batch.answer_lengths.cpu()
        asked = (batch.prompt_ids, batch.prompt_lengths.cpu(), speech, speech_lengths)
        pieces = Pieces(*asked, batch.suffix_ids, batch.answer_ids, answers)
        embeddings, totals = lay_out(self.get_input_embeddings(), self.speech_boundary, pieces)
        hidden = causal.packed_forward(self.llm, embeddings, causal.Packing(totals.tolist(), embeddings.device))
        before = spans(totals.cumsum(0) - answers - 1, answers)
        return token_losses(self.llm.get_output_embeddings(), hidden[before.to(hidden.device)], batch.answer_ids)

    @property
    def blank(self) -> int | None:
        """CTC's blank: the end of text as the LLM's configuration names it, whatever ends an answer.

        No transcript holds it.
        """
        return _end_of_text(self.config.llm)

    def token_logits(self, speech: Tensor) -> Tensor:
        """Compare speech embeddings (…, H) with all of the LLM's own token embeddings: (…, V) float32."""
        return normed(speech) @ self.get_input_embeddings().weight.float().T

    def ctc_states(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the speech embeddings (B, S, H) that CTC reads, not shrunk, and their lengths (B,),
        on the CPU."""
        return self._adapted(*self.encoder(features, feature_lengths))

    def speech_classes(self) -> CTCScores:
        """Return how CTC compares speech with the LLM's tokens, as the model was trained."""
        return scoring_of(self.config.losses).over(self.get_input_embeddings().weight, self.blank)

    def padded_speech(
        self, features: Tensor, feature_lengths: Tensor, tasks: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute what the LLM hears: padded speech embeddings (B, S, H) and their lengths (B,), on
        the CPU. ``tasks`` as in ``shrink.heard``."""
        return shrink.heard(self, *self.ctc_states(features, feature_lengths), tasks)

    def _adapted(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the encoder's states."""
        speech, lengths = self.adapter(states, lengths)
        return speech, lengths.cpu()  # under a device_map of several devices they come along with the states

    def speech_tokens(self, frames: Tensor) -> Tensor:
        """Count the LLM positions that speech takes, or takes at most: frames (n,) to tokens (n,)."""
        return self.adapter.output_lengths(self.encoder.output_lengths(frames))

    @property
    def embedding_s(self) -> float:
        """Seconds of speech in one embedding that CTC reads. Raises ValueError where the adapter has no fixed rate."""
        if self.adapter.stride is None:
            raise ValueError(
                f"adapter {self.config.adapter} has no fixed rate, so its embeddings have no times; "
                "use another adapter where word times are learned or told"
            )
        return self.adapter.stride * self.encoder.state_s

    def speech_embeddings(
        self, features: Tensor, feature_lengths: Tensor, tasks: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the LLM hears: embeddings of all utterances end to end (ΣS, H), and their lengths
        (B,), on the CPU. ``tasks`` as in ``padded_speech``."""
        speech, lengths = self.padded_speech(features, feature_lengths, tasks)
        index = spans(torch.arange(len(lengths)) * speech.shape[1], lengths)
        return speech.flatten(0, 1).index_select(0, index.to(speech.device)), lengths

    def prompt_embeddings(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        prompt_ids: Tensor,
        prompt_lengths: Tensor,
        suffix_ids: Tensor | None = None,
        tasks: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What stands before the answers, padded on the left with zeros: (B, L, H), with its mask (B, L) int64.

        ``suffix_ids`` (U,) stand behind the speech of all (text/chat.py); None: nothing does.
        ``tasks`` as in ``padded_speech``.
        Positions are to count the mask's ones (``mask.cumsum(1) - 1``), as ``generate`` of transformers does: so they equal training's.
        """
        speech = self.padded_speech(features, feature_lengths, tasks)
        return self.prompts_with(*speech, prompt_ids, prompt_lengths, suffix_ids)

    def prompts_with(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        prompt_ids: Tensor,
        prompt_lengths: Tensor,
        suffix_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The same from padded speech embeddings (B, S, H) and their lengths (B,), on the CPU."""
        pieces = Pieces(prompt_ids, prompt_lengths.cpu(), speech, speech_lengths, suffix_ids)
        return pad_left(*lay_out(self.get_input_embeddings(), self.speech_boundary, pieces))

    @torch.no_grad()
    def generate(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        prompt_ids: Tensor,
        prompt_lengths: Tensor,
        suffix_ids: Tensor | None = None,
        tasks: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers by transformers' ``generate``, whose keywords are taken: token ids (B, new tokens), padded after their end.

        ``tasks`` as in ``padded_speech``.
        """
        asked = (features, feature_lengths, prompt_ids, prompt_lengths, suffix_ids, tasks)
        embeddings, mask = self.prompt_embeddings(*asked)
        return self.llm.generate(inputs_embeds=embeddings, attention_mask=mask, **kwargs)


AutoConfig.register("wenet_osum", OsumConfig)
AutoModel.register(OsumConfig, OsumModel)
AutoModelForMultimodalLM.register(OsumConfig, OsumModel)
AutoFeatureExtractor.register(OsumConfig, OsumFeatureExtractor)
AutoProcessor.register(OsumConfig, OsumProcessor)

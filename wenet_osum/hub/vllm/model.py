"""The model as vLLM runs it: speech is embedded by our own encoder and adapter, the LLM is vLLM's.

Written for vLLM 0.33. Only here is vLLM imported at the top, for its classes are bases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BatchFeature
from vllm.config import ModelConfig, SpeechToTextConfig, SpeechToTextParams, VllmConfig
from vllm.model_executor.models.interfaces import (
    MultiModalEmbeddings,
    SupportsLoRA,
    SupportsMultiModal,
    SupportsPP,
    SupportsTranscription,
)
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from wenet_osum.decode.longform import WHOLE_S
from wenet_osum.hub.vllm import speech
from wenet_osum.models.osum_config import OsumConfig
from wenet_osum.models.processor import OsumFeatureExtractor
from wenet_osum.records import SAMPLE_RATE

LONGEST_S = int(WHOLE_S)
# What a layer of vLLM's Qwen holds in one matrix.
PACKED = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "gate_up_proj": ["gate_proj", "up_proj"],
}


class OsumInfo(BaseProcessingInfo):
    """What vLLM asks about the model's inputs."""

    def get_hf_config(self) -> OsumConfig:
        """Return the configuration of the whole model."""
        return self.ctx.get_hf_config(OsumConfig)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Allow any number of recordings: conversations have several."""
        return {"audio": None}

    def get_data_parser(self) -> MultiModalDataParser:
        """Resample to 16 kHz, one channel."""
        return MultiModalDataParser(target_sr=SAMPLE_RATE, target_channels=1)

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int] | None = None
    ) -> Mapping[str, int]:
        """Return the embeddings of the longest recording."""
        return {"audio": self.skeleton.count(LONGEST_S)}

    @property
    def skeleton(self) -> speech.Speech:
        """The speech part without numbers."""
        return speech.skeleton(self.ctx.model_config.model)


class OsumDummyInputs(BaseDummyInputsBuilder[OsumInfo]):
    """Inputs of the largest size, by which vLLM plans its memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """Return a placeholder for each recording."""
        return speech.PLACEHOLDER * mm_counts.get("audio", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return recordings of the greatest length."""
        count = mm_counts.get("audio", 0)
        length = LONGEST_S * SAMPLE_RATE
        sounds = self._get_dummy_audios(
            length=length, num_audios=count, overrides=mm_options.get("audio")
        )
        return {"audio": sounds}


class OsumMultiModalProcessor(BaseMultiModalProcessor[OsumInfo]):
    """Sounds to log-mel features, and placeholders to as many as there will be embeddings."""

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        """Make features of each recording by itself, so that none is padded to another.

        Raises ValueError for one that is longer than the encoder reaches.
        """
        config = self.info.get_hf_config()
        extract = OsumFeatureExtractor(config.encoder.num_mel_bins)
        features, lengths = [], []
        for sound in hf_data["audio"]:
            inputs = extract(sound)
            speech.check_reach(config, inputs["feature_lengths"])
            features.append(inputs["features"][0])
            lengths.append(inputs["feature_lengths"])
        counts = self.info.skeleton.counts(torch.cat(lengths))
        return BatchFeature({"features": features, "counts": counts})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        """Each recording has one entry of every field."""
        return {
            "features": MultiModalFieldConfig.batched("audio"),
            "counts": MultiModalFieldConfig.batched("audio", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        """Repeat the placeholder of each recording once per embedding."""
        template = speech.template_of(self.info.ctx.model_config.model)
        token = speech.placeholder_id(template)
        counts = out_mm_kwargs.get_data()["counts"]

        def repeated(item: int) -> list[int]:
            return [token] * int(counts[item])

        return [PromptReplacement(modality="audio", target=[token], replacement=repeated)]


@MULTIMODAL_REGISTRY.register_processor(
    OsumMultiModalProcessor, info=OsumInfo, dummy_inputs=OsumDummyInputs
)
class OsumForVllm(nn.Module, SupportsMultiModal, SupportsPP, SupportsLoRA, SupportsTranscription):
    """Our encoder and adapter before vLLM's own LLM."""

    supported_languages: ClassVar[Mapping[str, str]] = {"zh": "Chinese", "en": "English"}
    packed_modules_mapping = PACKED
    # LoRA as peft writes it names the LLM's modules without their place in this model.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={"model.": "llm.model.", "lm_head.": "llm.lm_head."}
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.folder = vllm_config.model_config.model
        with self._mark_tower_model(vllm_config, "audio"):
            self.speech = speech.Speech(config)
        with self._mark_language_model(vllm_config):
            self.llm = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.llm,
                prefix=maybe_prefix(prefix, "llm"),
            )
        self.make_empty_intermediate_tensors = self.llm.make_empty_intermediate_tensors

    # -- what is asked ------------------------------------------------------------------------

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """Return what stands for a recording in the text of a chat."""
        return speech.PLACEHOLDER

    @classmethod
    def get_generation_prompt(cls, stt_params: SpeechToTextParams) -> Any:
        """Return the prompt of /v1/audio/transcriptions, as the model was trained on it."""
        template = speech.template_of(stt_params.model_config.model)
        rate = stt_params.stt_config.sample_rate
        return {
            "prompt_token_ids": speech.prompt_ids(template, "asr", stt_params.language),
            "multi_modal_data": {"audio": (stt_params.audio, rate)},
        }

    @classmethod
    def get_speech_to_text_config(
        cls, model_config: ModelConfig, task_type: str
    ) -> SpeechToTextConfig:
        """Cut recordings into pieces that the encoder takes."""
        return SpeechToTextConfig(sample_rate=SAMPLE_RATE, max_audio_clip_s=LONGEST_S)

    @classmethod
    def get_num_audio_tokens(
        cls, audio_duration_s: float, stt_config: SpeechToTextConfig, model_config: ModelConfig
    ) -> int | None:
        """Return how many embeddings a recording becomes."""
        return speech.skeleton(model_config.model).count(audio_duration_s)

    @classmethod
    def post_process_output(cls, text: str) -> str:
        """Return the transcript of an answer."""
        return speech.transcript(text)

    def get_mm_mapping(self) -> MultiModelKeys:
        """Say which parts are the LLM's, for LoRA."""
        return MultiModelKeys.from_string_field(
            language_model="llm.", connector="speech.adapter.", tower_model="speech.encoder."
        )

    # -- what is computed ---------------------------------------------------------------------

    def embed_multimodal(self, **kwargs: Any) -> MultiModalEmbeddings:
        """Return the embeddings of each recording, with the boundaries around them."""
        features = kwargs.get("features")
        if features is None:
            return []
        dtype = self.speech.speech_boundary.weight.dtype
        return self.speech.embeddings([frames.to(dtype) for frames in features])

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """Run the LLM."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.llm.model(
            input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds
        )

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Return the LLM's logits."""
        return self.llm.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a model folder, with its LoRA added to the weights it adapts."""
        loader = AutoWeightsLoader(self)
        placed = _placed(speech.merged(weights, self.folder))
        return loader.load_weights(placed)


def _placed(weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """Give the weights of encoder, adapter and boundary their names in this model."""
    for name, weight in weights:
        here = name if name.startswith("llm.") else f"speech.{name}"
        yield here, weight

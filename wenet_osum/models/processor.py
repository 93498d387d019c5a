"""Sounds and tasks → the inputs of ``model.generate``, in the manner of transformers' processors.

    processor = AutoProcessor.from_pretrained(folder)
    ids = model.generate(**processor(audio="a.wav", task="ser"))
    processor.batch_decode(ids)

Features and prompts are made by the code that training and decoding use, so the answers are theirs. The folder's text.json holds label
sets and prompts; how many mel bins are needed stands in the model's config.json. So folders that training left need nothing more.
"""

from __future__ import annotations

import os
from numbers import Number
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin, SequenceFeatureExtractor

from wenet_osum.dataset.audio import decode, log_mel
from wenet_osum.dataset.sample import prompt_language
from wenet_osum.dataset.sound import Sound, source_of
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.tasks.base import Reading, Task
from wenet_osum.text.template import Template, read_settings
from wenet_osum.text.tokenizer import load_tokenizer

HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")  # keywords that say where files come from


class OsumFeatureExtractor(SequenceFeatureExtractor):
    """Whisper's log-mel features of the frames there are, without padding to 30 s. The names are those of the Auto classes."""

    model_input_names = ["features", "feature_lengths"]

    def __init__(self, feature_size: int = 80, sampling_rate: int = SAMPLE_RATE, padding_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(self, audio: Sound | list[Sound], sampling_rate: int | None = None, return_tensors: str = "pt") -> BatchFeature:
        """A sound or a list of them → ``features`` (B, T, M) float32 with zeros behind each, ``feature_lengths`` (B,) in frames of 10 ms.

        A sound is the path of an audio file, its bytes, an open file, samples at ``sampling_rate`` Hz (16000 when not given), or a
        tuple (samples, rate); other rates are resampled, channels averaged. Raises ValueError for what is no sound and what cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors {return_tensors!r}: the model takes tensors of torch; leave it out, or give 'pt'")
        sounds = audio if isinstance(audio, list) else [audio]
        if not sounds or any(isinstance(sound, Number) for sound in sounds):
            raise ValueError("a list holds several sounds, at least one, and a number is none; give samples as one array, numpy.array(…)")
        features = [self._features(sound, sampling_rate or self.sampling_rate) for sound in sounds]
        lengths = torch.tensor([len(f) for f in features], dtype=torch.int64)
        return BatchFeature({"features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True), "feature_lengths": lengths})

    def _features(self, sound: Sound, rate: int) -> Tensor:
        source = source_of(sound, rate)
        return log_mel(decode(source.read_bytes() if isinstance(source, Path) else source), self.feature_size)


class OsumProcessor(ProcessorMixin):
    """Feature extractor, tokenizer and template in one; ``settings`` are the template's, as text.json holds them."""

    def __init__(
        self, feature_extractor: OsumFeatureExtractor, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any] | None = None
    ) -> None:
        super().__init__(feature_extractor, tokenizer)
        self.template = Template(tokenizer, **(settings or {}))

    def __call__(
        self,
        audio: Sound | list[Sound],
        task: str | list[str] = "asr",
        sampling_rate: int | None = None,
        prompt: str | None = None,
        lang: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Exactly what ``model.generate`` takes: features, feature_lengths, prompt_ids (all prompts end to end), prompt_lengths, tasks (tags).

        A chat template also gives suffix_ids, which stand behind the speech.
        ``task`` is a name or tags, any combination of them, or a list with one for each sound. ``prompt`` replaces the task's own wording,
        ``lang`` (zh, en) chooses the language of that one. Audio is what OsumFeatureExtractor takes, each at most 30 s: the model refuses
        more, ``wenet_osum.load`` splits it. Raises ValueError for unknown tasks and languages, and for sounds that cannot be read.
        """
        inputs = self.feature_extractor(audio, sampling_rate, return_tensors)
        rows = len(inputs["feature_lengths"])
        names = task if isinstance(task, list) else [task] * rows
        if len(names) != rows:
            raise ValueError(f"{len(names)} tasks for {rows} sounds; give one for all, or one for each")
        asked = [self.template.task(name) for name in names]
        prompts = [self._prompt(one, prompt, lang) for one in asked]
        inputs["prompt_ids"] = torch.tensor([i for ids in prompts for i in ids], dtype=torch.int64)
        inputs["prompt_lengths"] = torch.tensor([len(ids) for ids in prompts], dtype=torch.int64)
        inputs["tasks"] = [one.tags for one in asked]
        if suffix := self.template.suffix_ids:
            inputs["suffix_ids"] = torch.tensor(suffix, dtype=torch.int64)
        return inputs

    def _prompt(self, task: Task, prompt: str | None, lang: str | None) -> list[int]:
        return self.template.encode_prompt(prompt) if prompt else self.template.prompt_ids(task, lang or prompt_language(self.template, task))

    @property
    def model_input_names(self) -> list[str]:
        """What a call gives."""
        names = [*self.feature_extractor.model_input_names, "prompt_ids", "prompt_lengths", "tasks"]
        return [*names, "suffix_ids"] if self.template.suffix_ids else names

    def decode(self, token_ids: Tensor | list[int], skip_special_tokens: bool = True, **options: Any) -> str:
        """The text of one answer up to its end; with ``skip_special_tokens=False`` all there is, padding too."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        return self.template.decode(ids) if skip_special_tokens else self.tokenizer.decode(ids, **options)

    def batch_decode(self, sequences: Tensor | list[list[int]], skip_special_tokens: bool = True, **options: Any) -> list[str]:
        """The texts of answers (B, tokens)."""
        return [self.decode(row, skip_special_tokens, **options) for row in sequences]

    def read(self, text: str, task: str = "asr") -> Reading:
        """An answer taken apart: transcript, words with times, labels, reply, and what could not be read."""
        return self.template.task(task).read(text)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> list[str]:
        """Write processor_config.json, the tokenizer and text.json; returns the files as transformers does."""
        written = super().save_pretrained(save_directory, **kwargs)
        self.template.save(save_directory)
        return written

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> OsumProcessor:
        """The processor of a model folder or hub name; of ``kwargs`` those that say where files come from are used (``revision``, …)."""
        name, where = str(pretrained_model_name_or_path), {key: kwargs[key] for key in HUB if key in kwargs}
        mels = AutoConfig.from_pretrained(name, **where).encoder.num_mel_bins
        return cls(OsumFeatureExtractor(mels), load_tokenizer(name, **where), read_settings(name, **where))

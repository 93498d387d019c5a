"""Sounds and tasks → the inputs of ``model.generate``, in the manner of transformers' processors.

    processor = AutoProcessor.from_pretrained(folder)
    ids = model.generate(**processor(audio="a.wav", task="ser"))
    processor.batch_decode(ids)

Features and prompts are made by the code that training and decoding use, so the answers are theirs.
The folder's text.json holds label sets and prompts; how many mel bins are needed stands in the
model's config.json. So folders that training left need nothing more.
"""

from __future__ import annotations

import os
from numbers import Number
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    BatchFeature,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    SequenceFeatureExtractor,
)

from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.sample import prompt_language
from wenet_osum.dataset.sound import Sound, source_of
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.tasks.base import Reading, Task
from wenet_osum.text.template import Template, read_settings
from wenet_osum.text.tokenizer import load_tokenizer

# Keywords that say where files come from.
HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class OsumFeatureExtractor(SequenceFeatureExtractor):
    """Whisper's log-mel features of the frames there are, without padding to 30 s.

    The names are those of the Auto classes.
    """

    model_input_names = ["features", "feature_lengths"]

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = SAMPLE_RATE,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(
        self,
        audio: Sound | list[Sound],
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Make of a sound or a list of them ``features`` (B, T, M) float32 with zeros behind each,
        and ``feature_lengths`` (B,) in frames of 10 ms.

        A sound is the path of an audio file, its bytes, an open file, samples at ``sampling_rate``
        Hz (16000 when not given), or a tuple (samples, rate); other rates are resampled, channels
        averaged. Raises ValueError for what is no sound and what cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(
                f"return_tensors {return_tensors!r}: the model takes tensors of torch; "
                "leave it out, or give 'pt'"
            )
        sounds = audio if isinstance(audio, list) else [audio]
        if not sounds or any(isinstance(sound, Number) for sound in sounds):
            raise ValueError(
                "a list holds several sounds, at least one, and a number is none; "
                "give samples as one array, numpy.array(…)"
            )
        rate = sampling_rate or self.sampling_rate
        features = [self._features(sound, rate) for sound in sounds]
        lengths = [len(frames) for frames in features]
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        inputs = {"features": padded, "feature_lengths": torch.tensor(lengths, dtype=torch.int64)}
        return BatchFeature(inputs)

    def _features(self, sound: Sound, rate: int) -> Tensor:
        source = source_of(sound, rate)
        if isinstance(source, Path):
            source = source.read_bytes()
        return log_mel(decode(source), self.feature_size)


class OsumProcessor(ProcessorMixin):
    """Feature extractor, tokenizer and template in one; ``settings`` are the template's, as
    text.json holds them."""

    def __init__(
        self,
        feature_extractor: OsumFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(feature_extractor, tokenizer)
        settings = settings or {}
        self.template = Template(tokenizer, **settings)

    def __call__(
        self,
        audio: Sound | list[Sound],
        task: str | list[str] = "asr",
        sampling_rate: int | None = None,
        prompt: str | None = None,
        lang: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Make exactly what ``model.generate`` takes: features, feature_lengths, prompt_ids (all
        prompts end to end), prompt_lengths, tasks (tags).

        A chat template also gives suffix_ids, which stand behind the speech. ``task`` is a name or
        tags, any combination of them, or a list with one for each sound. ``prompt`` replaces the
        task's own wording, ``lang`` (zh, en) chooses the language of that one. Audio is what
        OsumFeatureExtractor takes, each at most 30 s: the model refuses more, ``wenet_osum.load``
        splits it. Raises ValueError for unknown tasks and languages, and for sounds that cannot be
        read.
        """
        inputs = self.feature_extractor(audio, sampling_rate, return_tensors)
        rows = len(inputs["feature_lengths"])
        names = task if isinstance(task, list) else [task] * rows
        if len(names) != rows:
            raise ValueError(
                f"{len(names)} tasks for {rows} sounds; give one for all, or one for each"
            )

        # All prompts end to end.
        ids: list[int] = []
        lengths: list[int] = []
        tags: list[str] = []
        for name in names:
            own = self.template.task(name)
            asked = self._prompt(own, prompt, lang)
            ids += asked
            lengths.append(len(asked))
            tags.append(own.tags)
        inputs["prompt_ids"] = torch.tensor(ids, dtype=torch.int64)
        inputs["prompt_lengths"] = torch.tensor(lengths, dtype=torch.int64)
        inputs["tasks"] = tags
        suffix = self.template.suffix_ids
        if suffix:
            inputs["suffix_ids"] = torch.tensor(suffix, dtype=torch.int64)
        return inputs

    def _prompt(self, task: Task, prompt: str | None, lang: str | None) -> list[int]:
        """Encode the prompt of one sound."""
        if prompt:
            return self.template.encode_prompt(prompt)
        if not lang:
            lang = prompt_language(self.template, task)
        return self.template.prompt_ids(task, lang)

    @property
    def model_input_names(self) -> list[str]:
        """Describe the result of a call."""
        names = list(self.feature_extractor.model_input_names)
        names += ["prompt_ids", "prompt_lengths", "tasks"]
        if self.template.suffix_ids:
            names.append("suffix_ids")
        return names

    def decode(
        self, token_ids: Tensor | list[int], skip_special_tokens: bool = True, **options: Any
    ) -> str:
        """Return the text of one answer up to its end; with ``skip_special_tokens=False`` all there
        is, padding too."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        if skip_special_tokens:
            return self.template.decode(ids)
        return self.tokenizer.decode(ids, **options)

    def batch_decode(
        self,
        sequences: Tensor | list[list[int]],
        skip_special_tokens: bool = True,
        **options: Any,
    ) -> list[str]:
        """Return the texts of answers (B, tokens)."""
        texts = []
        for row in sequences:
            text = self.decode(row, skip_special_tokens, **options)
            texts.append(text)
        return texts

    def read(self, text: str, task: str = "asr") -> Reading:
        """Take an answer apart: transcript, words with times, labels, reply, and what could not be
        read."""
        asked = self.template.task(task)
        return asked.read(text)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> list[str]:
        """Write processor_config.json, the tokenizer and text.json; returns the files as
        transformers does."""
        written = super().save_pretrained(save_directory, **kwargs)
        self.template.save(save_directory)
        return written

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> OsumProcessor:
        """Load the processor of a model folder or hub name.

        Of ``kwargs`` those that say where files come from are used (``revision``, …).
        """
        name = str(pretrained_model_name_or_path)
        where = {key: kwargs[key] for key in HUB if key in kwargs}
        config = AutoConfig.from_pretrained(name, **where)
        extractor = OsumFeatureExtractor(config.encoder.num_mel_bins)
        tokenizer = load_tokenizer(name, **where)
        settings = read_settings(name, **where)
        return cls(extractor, tokenizer, settings)

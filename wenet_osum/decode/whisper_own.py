"""A published Whisper with its own decoder: what every model that begins from it is compared with.

Audio is padded to 30 s, as Whisper was trained; longer audio is refused, and counted as an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration

from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.drop import Drop
from wenet_osum.decode.jobs import Job, group_jobs
from wenet_osum.files import write_text
from wenet_osum.progress import ProgressBar
from wenet_osum.records import SAMPLE_RATE, Hypothesis
from wenet_osum.tasks import parse

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, ProcessorMixin

# Seconds of Whisper's input.
LONGEST_S = 30.0
TASK = parse("asr")


@dataclass
class WhisperDecoder:
    """Whisper as published, asked to transcribe."""

    model: PreTrainedModel
    processor: ProcessorMixin
    # such as en or zh; None: Whisper decides
    language: str | None = None
    # 1 is greedy
    num_beams: int = 1

    @classmethod
    def load(cls, source: str, language: str | None = None, num_beams: int = 1) -> WhisperDecoder:
        """Load a folder or hub name, to the accelerator where there is one."""
        processor = AutoProcessor.from_pretrained(source)
        model = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
        if torch.accelerator.is_available():
            device = torch.accelerator.current_accelerator()
            model.to(device)
        return cls(model.eval(), processor, language, num_beams)

    def answers(self, group: list[Job]) -> Iterator[Hypothesis]:
        """Transcribe one batch; what cannot be read becomes an answer with its error."""
        keys, audio = [], []
        for job in group:
            try:
                samples = _audio(job)
            except (Drop, OSError, ValueError) as error:
                yield Hypothesis(job.key, TASK.tags, "", error=str(error))
                continue
            audio.append(samples)
            keys.append(job.key)
        if not keys:
            return

        texts = self._transcribe(audio)
        for key, text in zip(keys, texts, strict=True):
            yield Hypothesis(key, TASK.tags, text, transcript=text)

    def _transcribe(self, audio: list[np.ndarray]) -> list[str]:
        """Transcribe recordings of up to 30 s, each (samples,) at 16 kHz."""
        made = self.processor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        features = made.input_features.to(self.model.device, self.model.dtype)
        ids = self.model.generate(
            features,
            language=self.language,
            task="transcribe",
            num_beams=self.num_beams,
        )
        texts = self.processor.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


def transcribe(
    jobs: list[Job], path: Path, source: str, batch_size: int, **asked: str | int | None
) -> int:
    """Append an answer for every job that has none in ``path`` yet.

    Returns how many jobs there are. The model is loaded from ``source`` only when something is
    missing; ``asked`` are language and num_beams.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _answered(path)
    missing = [job for job in jobs if job.key not in done]
    if not missing:
        return len(jobs)

    # Every recording is padded to 30 s, so that frames are no limit of a batch.
    groups = group_jobs(missing, batch_size, sys.maxsize)
    decoder = WhisperDecoder.load(source, **asked)
    seconds = sum(job.seconds for job in missing)
    progress = ProgressBar(len(missing), audio_s=seconds)
    with open(path, "a", encoding="utf-8", newline="\n") as out:
        for group in groups:
            for answer in decoder.answers(group):
                line = answer.to_json()
                out.write(f"{line}\n")
            out.flush()
            progress.add(len(group), sum(job.seconds for job in group))
    progress.close()
    return len(jobs)


def _answered(path: Path) -> set[str]:
    """Read the keys of a file of answers; a last line that was cut off is removed."""
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    write_text(path, "".join(whole))
    answers = map(json.loads, whole)
    return {answer["key"] for answer in answers}


def _audio(job: Job) -> np.ndarray:
    """Decode the audio of a job. Raises Drop for what is longer than Whisper's input."""
    if job.error:
        raise Drop(job.error)
    _, source = job.read()
    if isinstance(source, Path):
        source = source.read_bytes()
    samples = decode(source)
    seconds = len(samples) / SAMPLE_RATE
    if seconds > LONGEST_S:
        raise Drop(f"longer than {LONGEST_S:g} s", f"{seconds:.1f} s")
    return samples

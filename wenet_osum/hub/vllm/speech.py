"""What vLLM needs of a model beside its LLM, without vLLM: encoder and adapter, how many embeddings
a recording becomes, prompts as token ids, and weights with LoRA added.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from wenet_osum import lookup
from wenet_osum.dataset.sample import prompt_language
from wenet_osum.models import lora
from wenet_osum.models.assemble import make_adapter
from wenet_osum.models.osum_config import ENCODERS, OsumConfig
from wenet_osum.records import FRAME_S
from wenet_osum.tasks import parse
from wenet_osum.text.template import LANGUAGES, Template

# Where speech stands in a prompt: a token that Qwen's tokenizers have, and no template of ours
# writes.
PLACEHOLDER = "<|endoftext|>"
# The two embeddings around the speech.
BOUNDARIES = 2


class Speech(nn.Module):
    """Encoder, adapter and speech boundary, under the names that they have in a model folder.

    Raises ValueError where the number of embeddings depends on what is heard or asked: vLLM has to
    know it before anything is computed.
    """

    def __init__(self, config: OsumConfig) -> None:
        super().__init__()
        kind = lookup.load(ENCODERS, config.encoder.model_type)
        self.encoder = kind.Encoder(config.encoder)
        self.adapter = make_adapter(config, self.encoder.width)
        if config.time_marks:
            raise ValueError(
                "model.time_marks: how many embeddings there are depends on the task, and vLLM "
                "does not know it; feed it prompt embeddings (export --llm)"
            )
        if hasattr(self.adapter, "shrinker"):
            raise ValueError(
                f"adapter {config.adapter} gives as many embeddings as CTC hears, and vLLM asks "
                "how many before it computes; feed it prompt embeddings (export --llm)"
            )
        self.speech_boundary = nn.Embedding(BOUNDARIES, config.llm.hidden_size)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take over all weights and saved buffers; returns their names, as vLLM's loader asks."""
        state = dict(weights)
        self.load_state_dict(state)
        return set(state)

    def counts(self, frames: Tensor) -> Tensor:
        """Return how many embeddings recordings of ``frames`` (B,) become, boundaries included."""
        states = self.encoder.output_lengths(frames)
        return BOUNDARIES + self.adapter.output_lengths(states)

    def count(self, seconds: float) -> int:
        """Return how many embeddings ``seconds`` of speech become."""
        frames = round(seconds / FRAME_S)
        found = self.counts(torch.tensor([frames]))
        return int(found)

    @torch.no_grad()
    def embeddings(self, features: list[Tensor]) -> list[Tensor]:
        """Return what the LLM hears of each recording, features (T, M): (counts, H)."""
        frames = [len(row) for row in features]
        lengths = torch.tensor(frames)
        padded = pad_sequence(features, batch_first=True)
        states, state_lengths = self.encoder(padded, lengths)
        speech, speech_lengths = self.adapter(states, state_lengths)

        boundary = self.speech_boundary.weight.to(speech.dtype)
        before, after = boundary.split(1)
        found = []
        ends = speech_lengths.tolist()
        for row, end in zip(speech, ends, strict=True):
            heard = row[:end]
            whole = torch.cat([before, heard, after])
            found.append(whole)
        return found


@functools.lru_cache(maxsize=4)
def skeleton(folder: str) -> Speech:
    """Return the speech part of a model folder without numbers, to count with."""
    config = OsumConfig.from_pretrained(folder)
    with torch.device("meta"):
        return Speech(config)


@functools.lru_cache(maxsize=4)
def template_of(folder: str) -> Template:
    """Return the template of a model folder."""
    return Template.load(folder)


def placeholder_id(template: Template) -> int:
    """Return the token that stands where speech does. Raises ValueError for an LLM without it."""
    number = template.tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    if number is None or number == template.tokenizer.unk_token_id:
        raise ValueError(
            f"the tokenizer has no {PLACEHOLDER}, which stands where speech does; "
            "LLMs of Qwen's family have it"
        )
    return number


def prompt_ids(template: Template, task: str, language: str | None) -> list[int]:
    """Return a whole prompt as the model was trained on, with one placeholder for the speech.

    ``language`` is that of the wording; one that prompts are not written in counts as English, and
    a model whose prompts are in one language alone is asked in that.
    """
    asked = template.task(task)
    wording = language or "zh"
    if wording not in LANGUAGES:
        wording = "en"
    wording = prompt_language(template, asked, wording)
    before = template.prompt_ids(asked, wording)
    return [*before, placeholder_id(template), *template.suffix_ids]


def check_reach(config: OsumConfig, lengths: Tensor) -> None:
    """Raise ValueError for features, ``lengths`` (B,) in frames, beyond the encoder's positions.

    Where vLLM calls the encoder a fault ends the engine for all who ask.
    """
    reach = getattr(config.encoder, "max_source_positions", None)
    longest = int(lengths.max())
    if reach is not None and longest > 2 * reach:
        seconds, most = longest * FRAME_S, 2 * reach * FRAME_S
        raise ValueError(
            f"a recording of {seconds:.1f} s: {most:.0f} s are the most; cut it in pieces, "
            "or ask /v1/audio/transcriptions, which does"
        )


def transcript(text: str) -> str:
    """Return what an answer of recognition says."""
    reading = parse("asr").read(text)
    return reading.transcript or ""


def merged(weights: Iterable[tuple[str, Tensor]], folder: str) -> Iterator[tuple[str, Tensor]]:
    """Yield weights of a model folder or hub name, with the products of its LoRA added to those of
    the LLM. Raises ValueError where the settings of a LoRA have no weights beside them."""
    conf = lora.settings(folder)
    if conf is None:
        yield from weights
        return
    scale = conf.alpha / conf.r
    path = lora.find(folder, lora.WEIGHTS)
    if path is None:
        raise ValueError(f"{folder}: {lora.FOLDER}/{lora.WEIGHTS} is missing")
    found = load_file(path)
    for name, weight in weights:
        plain = name.removeprefix("llm.")
        layer = lora.PREFIX + plain.removesuffix(".weight")
        down = found.get(f"{layer}.lora_A.weight")
        up = found.get(f"{layer}.lora_B.weight")
        if down is None or up is None:
            yield name, weight
            continue
        product = up.float() @ down.float()
        product = product.to(weight.device)
        added = weight.float() + scale * product
        yield name, added.to(weight.dtype)

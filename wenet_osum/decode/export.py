"""A trained model as a folder for model hubs, and its LLM as one that any server of LLMs loads.

    OUT/        weights, config, processor, tokenizer, generation settings and README.md: what AutoModel and AutoProcessor read
    OUT/llm/    with ``llm``: the LLM alone, LoRA merged; OUT/vllm_example.py feeds it with prompt embeddings
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from wenet_osum.decode import card, licenses, stops
from wenet_osum.decode.longform import WHOLE_S
from wenet_osum.models import build
from wenet_osum.models.convert import new_folder
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.processor import OsumProcessor
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.text.template import Template

LLM, EXAMPLE = "llm", "vllm_example.py"
LONGEST_ANSWER = stops.SPARE_TOKENS + int(stops.TIMED_TOKENS_PER_S * WHOLE_S) + stops.REPLY_TOKENS  # tokens, the most that decoding allows
COMPARED = 16  # tokens of the parity check


def export(
    source: str | Path,
    out: str | Path,
    merge_lora: bool = False,
    score: str | Path | None = None,
    llm: bool = False,
    uses: Sequence[str] = (),
    license: str | None = None,
) -> list[str]:
    """Write ``out`` from the model folder or hub name ``source``; returns lines that say what was done.

    ``score`` is a score.json for the card, ``uses`` names more of what the model was made from, ``license`` is that of these weights.
    Weights keep their type. Raises ValueError for an unfit source, a taken ``out``, and when the LLM alone does not answer as in the model.
    """
    rows, unknown = _made_from(source, uses)
    model, processor = _open(source)
    if merge_lora and model.lora is not None:
        model.merge_lora()
    set_generation(model, processor.template)
    apart = model.lora is not None
    text = card.write(model, processor.template, rows, unknown, score, license)
    with new_folder(Path(out)) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if llm:
            write_llm(model, processor, folder)
    count = sum(weight.numel() for weight in model.parameters())
    said = [f"{out}: {count:,} parameters, {model.dtype}, LoRA {'in lora/' if apart else 'merged or none'}"]
    if llm:
        said.append(f"{Path(out) / LLM}: the LLM alone; the same {COMPARED} tokens as in the model. {Path(out) / EXAMPLE} feeds it with speech")
    said += [f"card: no license is known of {', '.join(unknown)}; name what they are with --uses, or complete README.md"] if unknown else []
    return said


def _open(source: str | Path) -> tuple[OsumModel, OsumProcessor]:
    model = build.load(source, "auto")
    if not isinstance(model, OsumModel):
        raise ValueError(f"{source} holds a {type(model).__name__} of phase 1, which has no LLM; give a folder of phase 2 or later")
    return model, OsumProcessor.from_pretrained(source)


def _made_from(source: str | Path, uses: Sequence[str]) -> tuple[list[licenses.License], list[str]]:
    """Rows of the license table for all that is known of the model's origin, and the names that it lacks."""
    rows = {row: None for row in licenses.named(uses)}
    names = licenses.origins(Path(source)) if Path(source).is_dir() else []
    rows |= {row: None for name in names if (row := licenses.find(name))}
    return list(rows), [name for name in names if not licenses.find(name)]


def set_generation(model: OsumModel, template: Template) -> None:
    """Let ``model.generate`` be greedy up to the end of an answer, as decoding is; an Instruct LLM would sample."""
    end = template.end_id
    others = sorted(template.end_ids - {end})
    settings = GenerationConfig(
        eos_token_id=[end, *others] if others else end,
        pad_token_id=end,
        do_sample=False,
        max_new_tokens=LONGEST_ANSWER,
    )
    model.generation_config = model.llm.generation_config = settings


def write_llm(model: OsumModel, processor: OsumProcessor, folder: Path) -> None:
    """Write the LLM of ``model``, whose LoRA is merged for good, and the example; check that the LLM alone answers as in the model."""
    if model.lora is not None:
        model.merge_lora()
    model.llm.save_pretrained(folder / LLM)
    processor.tokenizer.save_pretrained(str(folder / LLM))
    shutil.copyfile(Path(__file__).with_name(EXAMPLE + ".txt"), folder / EXAMPLE)
    check_llm(model, processor, folder / LLM)


@torch.no_grad()
def check_llm(model: OsumModel, processor: OsumProcessor, folder: Path) -> None:
    """Raise ValueError unless the LLM in ``folder`` continues the embeddings of a second of noise with the tokens that ``model`` gives."""
    noise = np.random.default_rng(0).normal(0.0, 0.1, SAMPLE_RATE).astype(np.float32)
    inputs = processor(audio=noise, task="asr")
    wanted = model.generate(**inputs, max_new_tokens=COMPARED)
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    embeddings, mask = model.prompt_embeddings(**inputs)
    given = alone.generate(inputs_embeds=embeddings.to(alone.dtype), attention_mask=mask, max_new_tokens=COMPARED)
    if not torch.equal(wanted, given):
        both = f"{given.tolist()}, in the model {wanted.tolist()}"
        raise ValueError(f"the LLM alone says {both}: nothing was written; check the source with recognize")

"""A trained model as a folder for model hubs, and its LLM as one that any server of LLMs loads.

OUT/        weights, config, processor, tokenizer, generation settings and README.md:
            what AutoModel and AutoProcessor read
OUT/llm/    with ``llm``: the LLM alone, LoRA merged;
            OUT/vllm_example.py feeds it with prompt embeddings
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from wenet_osum.decode import stops
from wenet_osum.decode.longform import WHOLE_S
from wenet_osum.hub import card, gguf_files, history, licenses
from wenet_osum.models import build
from wenet_osum.models.convert import new_folder
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.processor import OsumProcessor
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.text.template import Template

LLM, EXAMPLE = "llm", "vllm_example.py"
LLAMA_CPP_EXAMPLE = "llama_cpp_example.py"
# The most tokens that decoding allows for an answer.
LONGEST_ANSWER = stops.SPARE_TOKENS + int(stops.TIMED_TOKENS_PER_S * WHOLE_S) + stops.REPLY_TOKENS
# Tokens in which the LLM alone must agree with the LLM in the model.
COMPARED = 16


def export(
    source: str | Path,
    out: str | Path,
    merge_lora: bool = False,
    score: str | Path | None = None,
    llm: bool = False,
    gguf: str | None = None,
    uses: Sequence[str] = (),
    license: str | None = None,
) -> list[str]:
    """Write ``out`` from the model folder or hub name ``source``; return lines on what was done.

    ``score`` is a score.json for the card, ``uses`` names more of what the model was made from,
    ``license`` is that of these weights. Weights keep their type. ``gguf`` also writes the files of
    gguf_files.py, the LLM's matrices in that type, and LLAMA_CPP_EXAMPLE. Raises ValueError for an
    unfit source, a taken ``out``, and when the LLM alone does not answer as in the model.
    """
    past = history.read(Path(source))
    rows, unknown = _made_from(past, uses)
    model, processor = _open(source)
    if gguf:
        gguf_files.check(gguf, model.config.llm)
    if merge_lora and model.lora is not None:
        model.merge_lora()
    set_generation(model, processor.template)
    # Asked now, because writing the LLM alone merges LoRA.
    kept_apart = model.lora is not None

    text = card.write(model, processor.template, past, rows, unknown, score, license)
    with new_folder(Path(out)) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if llm:
            write_llm(model, processor, folder)
        if gguf:
            write_gguf(model, processor, folder, gguf)

    lora = "in lora/" if kept_apart else "merged or none"
    count = sum(weight.numel() for weight in model.parameters())
    done = [f"{out}: {count:,} parameters, {model.dtype}, LoRA {lora}"]
    if llm:
        agrees = f"the LLM alone; the same {COMPARED} tokens as in the model"
        example = Path(out) / EXAMPLE
        done.append(f"{Path(out) / LLM}: {agrees}. {example} feeds it with speech")
    if gguf:
        example = Path(out) / LLAMA_CPP_EXAMPLE
        done.append(
            f"{Path(out) / gguf_files.LLM}: the LLM in {gguf}. {example} feeds it with speech"
        )
    if unknown:
        advice = "name what they are with --uses, or complete README.md"
        done.append(f"card: no license is known of {', '.join(unknown)}; {advice}")
    return done


def _open(source: str | Path) -> tuple[OsumModel, OsumProcessor]:
    """Load a model with its processor. Raises ValueError for a model without an LLM."""
    model = build.load(source, "auto")
    if not isinstance(model, OsumModel):
        kind = type(model).__name__
        advice = "give a folder of phase 2 or later"
        raise ValueError(f"{source} holds a {kind} of phase 1, which has no LLM; {advice}")
    processor = OsumProcessor.from_pretrained(source)
    return model, processor


def _made_from(
    past: history.History, uses: Sequence[str]
) -> tuple[list[licenses.License], list[str]]:
    """Return what is known of the model's origin.

    These are the rows of the license table that belong to it, each once, and the names that the
    table lacks.
    """
    rows = licenses.named(uses)
    unknown = []
    for name in past.origins():
        row = licenses.find(name)
        if row is None:
            # Where a folder lies on this machine is nobody's business.
            path = Path(name)
            unknown.append(path.name if path.is_absolute() else name)
        else:
            rows.append(row)
    each_once = list(dict.fromkeys(rows))
    return each_once, unknown


def set_generation(model: OsumModel, template: Template) -> None:
    """Let ``model.generate`` be greedy up to the end of an answer, as decoding is.

    An Instruct LLM would sample.
    """
    end = template.end_id
    others = sorted(template.end_ids - {end})
    settings = GenerationConfig(
        eos_token_id=[end, *others] if others else end,
        pad_token_id=end,
        do_sample=False,
        max_new_tokens=LONGEST_ANSWER,
    )
    model.generation_config = settings
    model.llm.generation_config = settings


def write_llm(model: OsumModel, processor: OsumProcessor, folder: Path) -> None:
    """Write the LLM of ``model``, whose LoRA is merged for good, and the example.

    Raises ValueError when the LLM alone does not answer as in the model.
    """
    if model.lora is not None:
        model.merge_lora()
    model.llm.save_pretrained(folder / LLM)
    processor.tokenizer.save_pretrained(str(folder / LLM))
    _write_example(folder, EXAMPLE)
    check_llm(model, processor, folder / LLM)


def write_gguf(model: OsumModel, processor: OsumProcessor, folder: Path, form: str) -> None:
    """Write the files for llama.cpp and the example; LoRA is merged for good."""
    if model.lora is not None:
        model.merge_lora()
    gguf_files.write(model, processor.tokenizer, folder, form)
    _write_example(folder, LLAMA_CPP_EXAMPLE)


def _write_example(folder: Path, name: str) -> None:
    """Copy an example, which lies here as a text: it is not a part of the toolkit."""
    example = Path(__file__).with_name(f"{name}.txt")
    shutil.copyfile(example, folder / name)


@torch.no_grad()
def check_llm(model: OsumModel, processor: OsumProcessor, folder: Path) -> None:
    """Check that the LLM in ``folder`` answers a second of noise as it does in ``model``.

    Both are given the same embeddings. Raises ValueError when the tokens differ.
    """
    generator = np.random.default_rng(0)
    noise = generator.normal(0.0, 0.1, SAMPLE_RATE).astype(np.float32)
    inputs = processor(audio=noise, task="asr")
    wanted = model.generate(**inputs, max_new_tokens=COMPARED)

    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    embeddings, mask = model.prompt_embeddings(**inputs)
    given = alone.generate(
        inputs_embeds=embeddings.to(alone.dtype),
        attention_mask=mask,
        max_new_tokens=COMPARED,
    )
    if not torch.equal(wanted, given):
        both = f"{given.tolist()}, in the model {wanted.tolist()}"
        advice = "nothing was written; check the source with recognize"
        raise ValueError(f"the LLM alone says {both}: {advice}")
